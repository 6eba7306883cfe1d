#ifndef SINEW_H
#define SINEW_H

/* Made of src/c_api by cbindgen. Integrating: docs/integrating.md */

#include <stddef.h>
#include <stdint.h>

/*
 Major * 10000 + minor * 100 + patch of the header. A library of another major version has another interface.
 */
#define SINEW_VERSION 100

/*
 The best instruction set that the CPU has, or the one that the environment variable `SINEW_ISA` names.
 */
#define SINEW_ISA_AUTO 0

/*
 No vector instructions of the library's own choosing: runs everywhere.
 */
#define SINEW_ISA_SCALAR 1

/*
 AVX2 and FMA.
 */
#define SINEW_ISA_AVX2 2

/*
 AVX-512F.
 */
#define SINEW_ISA_AVX512 3

/*
 NEON, which every AArch64 CPU has.
 */
#define SINEW_ISA_NEON 4

/*
 Alignment in bytes of an arena and of a compiled model that is used in place.
 */
#define SINEW_ALIGNMENT 64

/*
 32-bit floating point.
 */
#define SINEW_DTYPE_F32 0

/*
 8-bit unsigned integers.
 */
#define SINEW_DTYPE_U8 1

/*
 64-bit signed integers.
 */
#define SINEW_DTYPE_I64 2

/*
 All of the image; proportions change.
 */
#define SINEW_RESIZE_STRETCH 0

/*
 The largest part in the middle that has the input's proportions.
 */
#define SINEW_RESIZE_CROP 1

/*
 All of the image in the middle; the rest is black.
 */
#define SINEW_RESIZE_PAD 2

/*
 RGB, or gray where the input has one channel.
 */
#define SINEW_COLOR_AUTO 0

/*
 Red, green, blue.
 */
#define SINEW_COLOR_RGB 1

/*
 Blue, green, red.
 */
#define SINEW_COLOR_BGR 2

/*
 One channel.
 */
#define SINEW_COLOR_GRAY 3

/*
 0 to 1, or the bytes as they are where the input takes bytes.
 */
#define SINEW_RANGE_AUTO 0

/*
 `value / 255`.
 */
#define SINEW_RANGE_UNIT 1

/*
 The value as it is.
 */
#define SINEW_RANGE_BYTE 2

/*
 What became of a call. Numbers never change their meaning.
 */
enum sinew_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /*
   Done.
   */
  SINEW_STATUS_OK = 0,
  /*
   A pointer that must not be is null.
   */
  SINEW_STATUS_NULL_POINTER = 1,
  /*
   A handle that was freed, or is none.
   */
  SINEW_STATUS_BAD_HANDLE = 2,
  /*
   An index, a size or a number that makes no sense.
   */
  SINEW_STATUS_BAD_ARGUMENT = 3,
  /*
   A file could not be read.
   */
  SINEW_STATUS_FILE = 4,
  /*
   A model is damaged, or of another version.
   */
  SINEW_STATUS_MALFORMED = 5,
  /*
   A model uses what this library does not implement, or was built without.
   */
  SINEW_STATUS_UNSUPPORTED = 6,
  /*
   A model exceeds a limit.
   */
  SINEW_STATUS_TOO_LARGE = 7,
  /*
   This CPU cannot run the instruction set that was asked for.
   */
  SINEW_STATUS_ISA_UNAVAILABLE = 8,
  /*
   The arena is too small or not aligned; the text says what is needed.
   */
  SINEW_STATUS_BAD_ARENA = 9,
  /*
   An input or output has no memory, or memory of another size or alignment.
   */
  SINEW_STATUS_BAD_BUFFER = 10,
  /*
   Another thread is in a call with this session.
   */
  SINEW_STATUS_BUSY = 11,
  /*
   The run was cancelled: its outputs hold anything.
   */
  SINEW_STATUS_CANCELLED = 12,
  /*
   No input or output has that name.
   */
  SINEW_STATUS_NOT_FOUND = 13,
  /*
   A fault of the library. The session can be freed, or run again.
   */
  SINEW_STATUS_INTERNAL = 14,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum sinew_status sinew_status;
#else
typedef int32_t sinew_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/*
 A network ready to run. Immutable: any number of threads may use it at once, one session each.
 */
typedef struct sinew_model sinew_model;

/*
 What runs a model: an arena of its own, used by one thread at a time. A second call at the same time gets
 `SINEW_STATUS_BUSY`.
 */
typedef struct sinew_session sinew_session;

/*
 How a model is loaded. Fill it with `sinew_model_options_init` first.
 */
typedef struct sinew_model_options {
  /*
   Bytes of this structure.
   */
  size_t size;
  /*
   Whether the checksum of a compiled model's weights is checked, which reads all of them: 0 or 1.
   */
  int32_t check_weights;
  /*
   The parts into which large steps of an ONNX model are cut: one per thread. A compiled model has its own.
   */
  uint32_t threads;
  /*
   The largest arena that is accepted, in bytes.
   */
  size_t max_arena_bytes;
  /*
   The most multiply-accumulates of one run that are accepted.
   */
  uint64_t max_macs;
} sinew_model_options;

/*
 Computes the parts of a step: calls `task(task_context, index)` once for each index below `parts`, in any order, on
 any thread, and returns when all calls have returned.
 */
typedef void (*sinew_parallel_for)(void *context,
                                   size_t parts,
                                   void (*task)(void *task_context, size_t index),
                                   void *task_context);

/*
 Told of every step that has run: its index in the model, and how long it took.
 */
typedef void (*sinew_on_step)(void *context, size_t step, uint64_t nanoseconds);

/*
 How a session runs. Fill it with `sinew_session_options_init` first.
 */
typedef struct sinew_session_options {
  /*
   Bytes of this structure.
   */
  size_t size;
  /*
   One of `SINEW_ISA_*`; one that the CPU lacks is an error.
   */
  int32_t isa;
  /*
   Threads to run on, at most those that the model is cut for; 0 for that number. More than one needs `parallel_for`
   or a library built with the feature `parallel`. No result depends on it.
   */
  uint32_t threads;
  /*
   Memory for the session's arena, aligned to `SINEW_ALIGNMENT`, which stays until the session is freed; null lets
   the session allocate it.
   */
  void *arena;
  /*
   Bytes of it: at least `sinew_memory.arena_bytes`.
   */
  size_t arena_bytes;
  /*
   The caller's threads instead of the library's; may be null.
   */
  sinew_parallel_for parallel_for;
  /*
   Handed to `parallel_for`.
   */
  void *parallel_context;
  /*
   Told of every step, on the thread that runs; may be null.
   */
  sinew_on_step on_step;
  /*
   Handed to `on_step`.
   */
  void *step_context;
} sinew_session_options;

/*
 How an image becomes an input: `(value - mean) / std` after resizing and choosing colours. Fill it with
 `sinew_image_options_init` first.
 */
typedef struct sinew_image_options {
  /*
   Bytes of this structure.
   */
  size_t size;
  /*
   How an image of another shape fills the input: one of `SINEW_RESIZE_*`.
   */
  int32_t resize;
  /*
   The channels: one of `SINEW_COLOR_*`.
   */
  int32_t color;
  /*
   What a value is before mean and deviation: one of `SINEW_RANGE_*`.
   */
  int32_t range;
  /*
   Taken away, in the order of the input's channels.
   */
  float mean[3];
  /*
   The divisor, in the order of the input's channels.
   */
  float std[3];
} sinew_image_options;

/*
 Room for one line of text, cut where it is longer.
 */
typedef struct sinew_message {
  /*
   Ends with a zero; empty where all went well.
   */
  char text[256];
} sinew_message;

/*
 A step of a run. What it points at stays until the model is freed.
 */
typedef struct sinew_step_info {
  /*
   The node it comes from.
   */
  const char *name;
  /*
   What it does.
   */
  const char *op;
  /*
   How.
   */
  const char *algorithm;
  /*
   Multiply-accumulates.
   */
  uint64_t macs;
  /*
   Bytes that must move at least.
   */
  uint64_t bytes;
} sinew_step_info;

/*
 What a model and each of its sessions need, exactly.
 */
typedef struct sinew_memory {
  /*
   Packed weights: shared by all sessions.
   */
  size_t weights_bytes;
  /*
   The arena of a session.
   */
  size_t arena_bytes;
  /*
   The part of the arena that is scratch.
   */
  size_t scratch_bytes;
  /*
   The part of the weights that lies in memory of the library: none of a compiled model that is used in place, all
   where its file holds 16-bit weights.
   */
  size_t owned_weights_bytes;
} sinew_memory;

/*
 An input or output. What it points at stays until the model is freed.
 */
typedef struct sinew_tensor_info {
  /*
   Its name in the model.
   */
  const char *name;
  /*
   One of `SINEW_DTYPE_*`.
   */
  int32_t dtype;
  /*
   The number of dimensions.
   */
  size_t rank;
  /*
   The extent of each; elements are row-major.
   */
  const size_t *shape;
  /*
   The product of the shape.
   */
  size_t elements;
  /*
   The size of its memory.
   */
  size_t bytes;
} sinew_tensor_info;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 The version of the library, as `SINEW_VERSION` is that of the header.
 */
uint32_t sinew_version(void);

/*
 Whether this CPU can run an instruction set: 1 or 0.
 */
int32_t sinew_isa_available(int32_t isa);

/*
 The name of an instruction set, as `SINEW_ISA` takes it; "unknown" for a number that is none. Stays for ever.
 */
const char *sinew_isa_name(int32_t isa);

/*
 What a status means, in a few words; "unknown status" for a number that is none. Stays for ever.
 */
const char *sinew_status_text(int32_t status);

/*
 Fills in the defaults: no checksum of the weights, one thread, an arena of at most 4 GiB.

 # Safety
 `options` is null or points at the structure.
 */
void sinew_model_options_init(struct sinew_model_options *options);

/*
 Fills in the defaults: the best instruction set, the model's threads, an arena of the session's own.

 # Safety
 `options` is null or points at the structure.
 */
void sinew_session_options_init(struct sinew_session_options *options);

/*
 Fills in the defaults: stretched, RGB or gray as the input takes it, 0 to 1 or bytes likewise.

 # Safety
 `options` is null or points at the structure.
 */
void sinew_image_options_init(struct sinew_image_options *options);

/*
 Loads a model from a file: compiled, `.sinew`, or ONNX where the library was built with the feature `onnx`.

 A compiled model is mapped and its weights are used where they lie in the file, which nobody may shorten or change
 while the model lives; replacing it under its name by a new file is safe. Weights of 16 bits are widened into memory
 of the library.

 # Safety
 `path` ends with a zero; `options` (may be null) and `message` (may be null) point at their structures; `model`
 receives the handle.
 */
sinew_status sinew_model_open(const char *path,
                              const struct sinew_model_options *options,
                              struct sinew_model **model,
                              struct sinew_message *message);

/*
 Loads a model from memory that need not stay: all of it is copied.

 # Safety
 As `sinew_model_open`; `bytes` points at `size` bytes.
 */
sinew_status sinew_model_from_memory(const void *bytes,
                                     size_t size,
                                     const struct sinew_model_options *options,
                                     struct sinew_model **model,
                                     struct sinew_message *message);

/*
 Uses a compiled model where it lies: in flash, or in an array that `sinew compile --c-array` wrote. Its weights are
 not copied, unless they have 16 bits.

 # Safety
 As `sinew_model_open`; `bytes` points at `size` bytes that stay unchanged until the model and all its sessions are
 freed. They must be aligned to `SINEW_ALIGNMENT`, else the model is refused.
 */
sinew_status sinew_model_in_place(const void *bytes,
                                  size_t size,
                                  const struct sinew_model_options *options,
                                  struct sinew_model **model,
                                  struct sinew_message *message);

/*
 Frees a model. Its sessions go on; memory that they share is freed with the last of them. Null is fine.

 # Safety
 The model is null, or one that was not freed, and nobody uses it afterwards.
 */
sinew_status sinew_model_free(struct sinew_model *model);

/*
 The model's name in its file; null for no model.

 # Safety
 The model is null, or one that was not freed.
 */
const char *sinew_model_name(const struct sinew_model *model);

/*
 The number of steps of a run; 0 for no model.

 # Safety
 The model is null, or one that was not freed.
 */
size_t sinew_model_step_count(const struct sinew_model *model);

/*
 The threads that the model's plan is cut for; 0 for no model.

 # Safety
 The model is null, or one that was not freed.
 */
size_t sinew_model_threads(const struct sinew_model *model);

/*
 What a step is.

 # Safety
 The model was not freed; `info` points at the structure.
 */
sinew_status sinew_model_step(const struct sinew_model *model,
                              size_t index,
                              struct sinew_step_info *info);

/*
 The memory that the model and each of its sessions need, before a session is made.

 # Safety
 The model was not freed; `memory` points at the structure.
 */
sinew_status sinew_model_memory(const struct sinew_model *model, struct sinew_memory *memory);

/*
 The number of inputs; 0 for no model.

 # Safety
 The model is null, or one that was not freed.
 */
size_t sinew_model_input_count(const struct sinew_model *model);

/*
 The number of outputs; 0 for no model.

 # Safety
 The model is null, or one that was not freed.
 */
size_t sinew_model_output_count(const struct sinew_model *model);

/*
 What an input is.

 # Safety
 The model was not freed; `info` points at the structure.
 */
sinew_status sinew_model_input(const struct sinew_model *model,
                               size_t index,
                               struct sinew_tensor_info *info);

/*
 What an output is.

 # Safety
 The model was not freed; `info` points at the structure.
 */
sinew_status sinew_model_output(const struct sinew_model *model,
                                size_t index,
                                struct sinew_tensor_info *info);

/*
 The index of the input of that name.

 # Safety
 The model was not freed; `name` ends with a zero; `index` points at the result.
 */
sinew_status sinew_model_find_input(const struct sinew_model *model,
                                    const char *name,
                                    size_t *index);

/*
 The index of the output of that name.

 # Safety
 The model was not freed; `name` ends with a zero; `index` points at the result.
 */
sinew_status sinew_model_find_output(const struct sinew_model *model,
                                     const char *name,
                                     size_t *index);

/*
 Makes a session of a model.

 # Safety
 The model was not freed; `options` (may be null) and `message` (may be null) point at their structures; `session`
 receives the handle. An arena that is handed over is used by nobody else until the session is freed.
 */
sinew_status sinew_session_new(const struct sinew_model *model,
                               const struct sinew_session_options *options,
                               struct sinew_session **session,
                               struct sinew_message *message);

/*
 Frees a session. Null is fine. A session that runs is not freed: `SINEW_STATUS_BUSY`.

 # Safety
 The session is null, or one that was not freed, and nobody uses it afterwards.
 */
sinew_status sinew_session_free(struct sinew_session *session);

/*
 Says where an input's elements are, for all runs from now on. They are read during runs, where they lie.

 # Safety
 The session was not freed; `data` points at `bytes` bytes that stay while it is bound.
 */
sinew_status sinew_session_bind_input(struct sinew_session *session,
                                      size_t index,
                                      const void *data,
                                      size_t bytes);

/*
 Says where an output's elements go, for all runs from now on. They are written during runs, where they lie.

 # Safety
 The session was not freed; `data` points at `bytes` bytes that stay while it is bound.
 */
sinew_status sinew_session_bind_output(struct sinew_session *session,
                                       size_t index,
                                       void *data,
                                       size_t bytes);

/*
 Makes an input of an image: rows of pixels from top to bottom, 3 bytes each: red, green, blue. It is read during this
 call only; this call allocates.

 # Safety
 The session was not freed; `rgb` points at `width * height * 3` bytes; `options` (may be null) at its structure.
 */
sinew_status sinew_session_set_image(struct sinew_session *session,
                                     size_t index,
                                     const uint8_t *rgb,
                                     size_t width,
                                     size_t height,
                                     const struct sinew_image_options *options);

/*
 Computes the outputs. On one thread it makes no allocation, takes no lock and makes no system call.

 # Safety
 The session was not freed; the bound memory is still there, and nobody else uses it during the call.
 */
sinew_status sinew_session_run(struct sinew_session *session);

/*
 Ends the run in progress, or else the next one, between two steps with `SINEW_STATUS_CANCELLED`. Any thread may call
 it, and so may the session's callbacks.

 # Safety
 The session was not freed.
 */
sinew_status sinew_session_cancel(const struct sinew_session *session);

/*
 The instruction set in use, one of `SINEW_ISA_*`; -1 for no session, and while another thread is in a call.

 # Safety
 The session is null, or one that was not freed.
 */
int32_t sinew_session_isa(struct sinew_session *session);

/*
 What the last call with this session said; empty where all went well. Read it on the thread that made the call,
 before the next one.

 # Safety
 The session is null, or one that was not freed.
 */
const char *sinew_session_message(const struct sinew_session *session);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SINEW_H */
