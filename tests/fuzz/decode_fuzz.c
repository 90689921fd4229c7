/* The decoders under libFuzzer: `./dev fuzz`. */
#include <string.h>

#include "fuzz/decode_target.h"

/* libFuzzer's names. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t room);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    decode_one(data, size);
    return 0;
}

/* Now and then it starts from a valid message of any decoder, so that no corpus is needed. */
size_t
LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room, unsigned seed)
{
    uint8_t fresh[4096];
    if (seed % 64 == 0 || size < 2) {
        size_t length = decode_seed(seed / 64, fresh, sizeof fresh);
        if (length <= room) {
            memcpy(data, fresh, length);
            size = length;
            if (seed % 128 == 0)
                return size;
        }
    }
    return LLVMFuzzerMutate(data, size, room);
}
