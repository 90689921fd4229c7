/* The schemes of proxy URLs. Thread-safe, no state. */
#ifndef PTIER_SCHEME_H
#define PTIER_SCHEME_H

#include <stddef.h>
#include <stdint.h>

#define PTIER_SCHEME_LIST "http, https, socks4, socks4a, socks5, socks5h"

/* The scheme of that name, any case, or NULL. Static storage. */
const char *ptier_scheme_find(const char *text, size_t length);

/* Its usual port; `scheme` is one that ptier_scheme_find gave. */
uint16_t ptier_scheme_port(const char *scheme);

/*
 * The only scheme that a heading or a file name mentions as a word ("# SOCKS5 Proxies (28)",
 * "socks5-list.txt"); NULL when it mentions none or several. The scheme of a URL in the text does
 * not count. Static storage.
 */
const char *ptier_scheme_mentioned(const char *text, size_t length);

#endif
