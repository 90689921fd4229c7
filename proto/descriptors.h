/*
 * The FileDescriptorSet of all our .proto files, made by the build (cmake/embed.cmake). Thread-safe
 * (constants).
 */
#ifndef PTIER_DESCRIPTORS_H
#define PTIER_DESCRIPTORS_H

#include <stddef.h>
#include <stdint.h>

extern const uint8_t ptier_descriptors[];
extern const size_t ptier_descriptors_length;

#endif
