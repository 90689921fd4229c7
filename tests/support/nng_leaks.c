/*
 * For programs that cut connections of their own: nng 1.5 loses a message that it is handed while
 * the connection ends, and some of what belonged to it. What daemons lose so is in
 * daemon_leaks.supp.
 */
__attribute__((visibility("default"))) const char *__lsan_default_suppressions(void);
const char *
__lsan_default_suppressions(void)
{
    return "leak:libnng.so";
}
