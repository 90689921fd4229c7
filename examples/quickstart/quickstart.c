#include <proxytier/client.h>

int
main(void)
{
    ptier_client *client;
    ptier_error error;
    if (ptier_client_open(NULL, &client, &error) != PTIER_OK) /* PROXYTIER_URL says where */
        return fprintf(stderr, "%s\n", error.message), 1;

    ptier_filter filter = {.scheme = "http"};
    ptier_pick_options options = {.count = 3, .filter = &filter};
    ptier_records picked = {.count = 0};
    ptier_status status = ptier_pick(client, &options, &picked, &error);
    for (size_t i = 0; i < picked.count; i++)
        printf("%s\n", picked.records[i].url);

    if (status == PTIER_OK) { /* ... use the first one, it fails, tell everybody: */
        ptier_report report = {.key = picked.records[0].key, .outcome = PTIER_REPORT_FAILED};
        status = ptier_report_health(client, &report, 1, NULL, NULL, &error);
    }
    if (status != PTIER_OK)
        fprintf(stderr, "%s\n", error.message);
    ptier_records_free(&picked);
    ptier_client_close(client);
    return status != PTIER_OK;
}
