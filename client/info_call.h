/* GetInfo with a time limit of its own, for the subscription. Thread-safe. */
#ifndef PTIER_INFO_CALL_H
#define PTIER_INFO_CALL_H

#include <proxytier/client.h>

/* timeout_ms 0: the client's. */
PTIER_MUST_CHECK ptier_status ptier_get_info_within(ptier_client *client, uint32_t timeout_ms,
                                                    ptier_server_info *info, ptier_error *error);

#endif
