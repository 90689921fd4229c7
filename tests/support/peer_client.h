/*
 * An SDK client, and a scripted peer that answers it well. Failures fail the running cmocka test.
 */
#ifndef PTIER_TESTS_PEER_CLIENT_H
#define PTIER_TESTS_PEER_CLIENT_H

#include <stdint.h>

#include <proxytier/client.h>

#include "support/scripted_peer.h"

/* Owned by the caller: ptier_client_close. The peer need not listen yet. */
ptier_client *open_client(const char *url, uint32_t timeout_ms);

/* A peer_handler without a context: answers Get with a record of the key that was asked for and
 * ReportHealth with one result, everything else with an empty body. */
void answer_well(void *context, const peer_request *request, peer_answer *answer);

/* A Get gives one record. */
void assert_answers(ptier_client *client);

#endif
