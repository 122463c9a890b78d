/* The load server of the benchmarks: a GPROChat site and an OpenAI one that cost next to nothing.
 *
 * One thread, one epoll, no parsing beyond what it takes to find a request's end. Every answer is
 * made of equal chunks, so a block of k chunks is the first part of one buffer that is built once.
 * What to answer is read from the request itself, anywhere in its target or body:
 *
 *     chunks=50 size=16     how many HTTP chunks, and the bytes of text in each
 *     per_write=1           chunks in one write; the head, and the event with the role, go with the
 *                           first, the end with the last
 *     gap_ms=10             milliseconds between writes; 0: as fast as the client reads
 *     hold=1                after the first write wait for GET /release
 *     close=1               answer with Connection: close
 *     stamped=1             the text of each chunk is the CLOCK_MONOTONIC time at which it is sent,
 *                           in nanoseconds, as 16 hexadecimal digits; one chunk to a write
 *
 * GET /stats tells what the server itself has seen and used. Ends with its parent, by SIGALRM at
 * the latest. Linux only.  Usage: server <core, or -1> <seconds to live>; prints its port.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define SLOTS 1024               /* of the timer wheel, 1 ms each: gaps must be shorter */
#define BLOCK_BYTES (4 << 20)    /* the longest block of equal chunks */
#define INPUT_BYTES (64 << 10)   /* the longest request */
#define EVENTS 512

/* Events of a reply of OpenAI's API, as OpenAI sends them if asked for the usage: the role first, the
 * text, the finish reason, the usage. */
#define EVENT(choices, usage) "data: {\"id\":\"chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG\"," \
    "\"object\":\"chat.completion.chunk\",\"created\":1741570283," \
    "\"model\":\"gpt-4o-mini-2024-07-18\",\"system_fingerprint\":\"fp_50cad350e4\",\"choices\":[" choices "],\"usage\":" usage "}\n\n"
#define CHOICE(delta, reason) "{\"index\":0,\"delta\":" delta ",\"logprobs\":null,\"finish_reason\":" reason "}"
#define ROLE EVENT(CHOICE("{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null}", "null"), "null")
#define TEXT EVENT(CHOICE("{\"content\":\"%s\"}", "null"), "null")
#define FINISH EVENT(CHOICE("{}", "\"stop\""), "null")
#define USAGE EVENT("", "{\"prompt_tokens\":19,\"completion_tokens\":10,\"total_tokens\":29," \
    "\"prompt_tokens_details\":{\"cached_tokens\":0,\"audio_tokens\":0}," \
    "\"completion_tokens_details\":{\"reasoning_tokens\":0,\"audio_tokens\":0," \
    "\"accepted_prediction_tokens\":0,\"rejected_prediction_tokens\":0}}")
#define DONE "data: [DONE]\n\n"

typedef struct Conn {
    struct Conn *prev, *next;    /* in a slot of the wheel, or among the held; NULL: in neither */
    struct iovec out[3];         /* what is still to be written: head, block, end */
    int fd, queued;
    bool answering, control, sse, waits_for_room;
    long left, size, per_write, gap_ms, hold, close, stamped;
    int64_t due;                 /* when the next block is to go out, in ms */
    size_t used;
    char *in, *stamp;            /* the request; the last stamped chunk */
} Conn;

typedef struct { bool sse; long size; size_t chunk, bytes; char *data; } Block;

static Conn wheel[SLOTS], held;  /* heads of circular lists */
static int64_t tick, last_close_ns;
static long timers, holding, open_conns, answering, most_answering, requests, writes;
static int poller;
static bool release_held;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void *checked(void *p) {
    if (!p) { perror("load server"); exit(1); }
    return p;
}

static void append(Conn *list, Conn *c) {
    c->prev = list->prev, c->next = list;
    list->prev->next = c, list->prev = c;
}

static void unlink_conn(Conn *c) {
    c->prev->next = c->next, c->next->prev = c->prev;
    c->prev = c->next = NULL;
}

static void watch(Conn *c, bool for_room) {
    if (c->waits_for_room == for_room) return;
    c->waits_for_room = for_room;
    struct epoll_event e = {.events = EPOLLIN | EPOLLRDHUP | (for_room ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &e);
}

static void drop(Conn *c) {
    if (c->next) {
        if (c->gap_ms && !c->hold) timers--; else holding--;
        unlink_conn(c);
    }
    if (!c->control) open_conns--, last_close_ns = now_ns();
    if (c->answering) answering--;
    close(c->fd);
    free(c->in), free(c->stamp);
    free(c);
}

static char *chunk_of(bool sse, const char *text) {
    char *body, *chunk;
    if (asprintf(&body, sse ? TEXT : "%s", text) < 0 || asprintf(&chunk, "%zx\r\n%s\r\n", strlen(body), body) < 0) exit(1);
    free(body);
    return chunk;
}

/* The block of equal chunks for these answers: any prefix of whole chunks is a block, too. */
static Block *block_of(bool sse, long size) {
    static Block known[32];
    static int count;
    for (int i = 0; i < count; i++)
        if (known[i].sse == sse && known[i].size == size) return &known[i];
    Block *b = &known[count < 31 ? count++ : 31];
    char *text = checked(malloc(size + 1));
    for (long i = 0; i < size; i++) text[i] = i == size - 1 ? ' ' : 'a' + i % 26;
    text[size] = 0;
    char *chunk = chunk_of(sse, text);
    *b = (Block){sse, size, strlen(chunk), 0, checked(malloc(BLOCK_BYTES))};
    for (; b->bytes + b->chunk <= BLOCK_BYTES; b->bytes += b->chunk)
        memcpy(b->data + b->bytes, chunk, b->chunk);
    free(text), free(chunk);
    return b;
}

static void queue(Conn *c, const char *data, size_t bytes) {
    c->out[c->queued++] = (struct iovec){(void *)data, bytes};
}

static void queue_stamp(Conn *c) {
    char text[17];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)now_ns());
    free(c->stamp), c->stamp = chunk_of(c->sse, text);
    queue(c, c->stamp, strlen(c->stamp));
    c->left--;
}

static void queue_equal(Conn *c) {
    Block *b = block_of(c->sse, c->size);
    long most = b->bytes / b->chunk, count = c->left < c->per_write ? c->left : c->per_write;
    if (count > most) count = most;
    if (count) queue(c, b->data, count * b->chunk);
    c->left -= count;
}

static void queue_block(Conn *c) {
    if (c->stamped && c->left) queue_stamp(c); else queue_equal(c);
    static char ends[2][2048];
    char *end = ends[c->sse];
    if (!*end)
        snprintf(end, sizeof ends[0], c->sse ? "%zx\r\n%s\r\n%zx\r\n%s\r\n%zx\r\n%s\r\n0\r\n\r\n" : "0\r\n\r\n",
                 strlen(FINISH), FINISH, strlen(USAGE), USAGE, strlen(DONE), DONE);
    if (!c->left) queue(c, end, strlen(end));
}

/* Write what there is to write. False: the connection is gone. */
static bool flush(Conn *c) {
    while (c->queued) {
        ssize_t n = writev(c->fd, c->out, c->queued);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) { watch(c, true); return true; }
        if (n < 0) { drop(c); return false; }
        writes++;
        int done = 0;
        for (; done < c->queued && (size_t)n >= c->out[done].iov_len; done++) n -= c->out[done].iov_len;
        memmove(c->out, c->out + done, (c->queued -= done) * sizeof *c->out);
        if (c->queued) c->out[0].iov_base = (char *)c->out[0].iov_base + n, c->out[0].iov_len -= n;
    }
    watch(c, false);
    return true;
}

/* Go on with an answer until it has to wait or is whole. False: the connection is gone. */
static bool go_on(Conn *c) {
    for (;;) {
        if (!flush(c)) return false;
        if (c->queued || !c->answering) return true;
        if (!c->left) {
            c->answering = false, answering--;
            if (c->close) { drop(c); return false; }
            return true;
        }
        if (c->hold) { holding++; append(&held, c); return true; }
        if (c->gap_ms) {
            if (!timers++) tick = now_ns() / 1000000;
            c->due += c->gap_ms;
            if (c->due <= tick) c->due = tick + 1;
            append(&wheel[c->due % SLOTS], c);
            return true;
        }
        queue_block(c);
    }
}

static long parameter(const char *request, const char *name, long otherwise) {
    const char *found = strstr(request, name);
    return found ? strtol(found + strlen(name), NULL, 10) : otherwise;
}

static void answer_text(Conn *c, const char *body) {
    static char text[1024];      /* written at once: a control connection is never behind */
    int n = snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                     "content-length: %zu\r\n\r\n%s", strlen(body), body);
    queue(c, text, n);
}

static void answer_stats(Conn *c) {
    struct rusage u;
    char body[512];
    if (!c->control) c->control = true, open_conns--;
    getrusage(RUSAGE_SELF, &u);
    snprintf(body, sizeof body, "{\"cpu\": %.6f, \"open\": %ld, \"answering\": %ld, "
             "\"most_answering\": %ld, \"held\": %ld, \"requests\": %ld, \"writes\": %ld, \"last_close_ns\": %lld}",
             u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6,
             open_conns, answering, most_answering, holding, requests, writes, (long long)last_close_ns);
    answer_text(c, body);
}

static void answer(Conn *c, const char *request) {
    if (!strncmp(request, "GET /stats", 10)) { answer_stats(c); return; }
    if (!strncmp(request, "GET /release", 12)) { release_held = true; answer_text(c, "{}"); return; }
    c->sse = !strncmp(request, "POST /v1/chat/completions", 25);
    if (!c->sse && strncmp(request, "POST /api/generate", 18)) { answer_text(c, "\"ok\""); return; }
    requests++, answering++, c->answering = true;
    if (answering > most_answering) most_answering = answering;
    c->left = parameter(request, "chunks=", 10), c->size = parameter(request, "size=", 16);
    c->per_write = parameter(request, "per_write=", 1), c->hold = parameter(request, "hold=", 0);
    c->gap_ms = parameter(request, "gap_ms=", 0), c->close = parameter(request, "close=", 0);
    c->stamped = parameter(request, "stamped=", 0);
    if (c->size < 1 || c->size > 65536) c->size = 16;
    if (c->per_write < 1) c->per_write = 1;
    if (c->gap_ms >= SLOTS) c->gap_ms = SLOTS - 1;
    c->due = now_ns() / 1000000;
    static char heads[2][2][1024];
    char *head = heads[c->sse][!!c->close];
    if (!*head) {
        int n = snprintf(head, sizeof heads[0][0], "HTTP/1.1 200 OK\r\ncontent-type: %s; charset=utf-8\r\n"
                 "Transfer-Encoding: chunked\r\n%s\r\n\r\n", c->sse ? "text/event-stream" : "text/plain",
                 c->close ? "Connection: close" : "Connection: keep-alive\r\nKeep-Alive: timeout=5");
        if (c->sse) snprintf(head + n, sizeof heads[0][0] - n, "%zx\r\n%s\r\n", strlen(ROLE), ROLE);
    }
    queue(c, head, strlen(head));
    queue_block(c);
}

/* Read requests and answer them one after the other. */
static void receive(Conn *c) {
    ssize_t n = read(c->fd, c->in + c->used, INPUT_BYTES - c->used);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) { drop(c); return; }
    c->in[c->used += n] = 0;
    while (!c->answering && !c->queued) {
        char *end = strstr(c->in, "\r\n\r\n"), *length = strcasestr(c->in, "\r\ncontent-length:");
        if (!end) break;
        size_t whole = end + 4 - c->in + (length && length < end ? strtoul(length + 17, NULL, 10) : 0);
        if (whole >= INPUT_BYTES) { drop(c); return; }
        if (c->used < whole) break;
        char after = c->in[whole];
        c->in[whole] = 0;
        answer(c, c->in);
        c->in[whole] = after;
        memmove(c->in, c->in + whole, (c->used -= whole) + 1);
        if (!go_on(c)) return;
    }
}

static void accept_all(int listener) {
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        Conn *c = checked(calloc(1, sizeof *c));
        c->fd = fd, c->in = checked(malloc(INPUT_BYTES + 1)), open_conns++;
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &(struct epoll_event){EPOLLIN | EPOLLRDHUP, {.ptr = c}});
    }
}

static void run_timers(void) {
    for (int64_t now = now_ns() / 1000000; timers && tick <= now; tick++)
        for (Conn *list = &wheel[tick % SLOTS], *c; (c = list->next) != list;) {
            timers--, unlink_conn(c), queue_block(c), go_on(c);
        }
    while (release_held && held.next != &held) {
        Conn *c = held.next;
        holding--, unlink_conn(c), c->hold = 0, queue_block(c), go_on(c);
    }
    release_held = false;
}

static int until_next_timer(void) {
    if (!timers) return -1;
    int64_t next = tick;
    while (wheel[next % SLOTS].next == &wheel[next % SLOTS]) next++;
    int64_t wait = next - now_ns() / 1000000;
    return wait > 0 ? wait : 0;
}

int main(int argc, char **argv) {
    cpu_set_t cores;
    struct rlimit files;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int core = argc > 1 ? atoi(argv[1]) : -1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alarm(argc > 2 ? atoi(argv[2]) : 600);
    signal(SIGPIPE, SIG_IGN);
    CPU_ZERO(&cores);
    CPU_SET(core < 0 ? 0 : core, &cores);
    if (core >= 0) sched_setaffinity(0, sizeof cores, &cores);
    getrlimit(RLIMIT_NOFILE, &files), files.rlim_cur = files.rlim_max, setrlimit(RLIMIT_NOFILE, &files);
    for (int i = 0; i < SLOTS; i++) wheel[i].next = wheel[i].prev = &wheel[i];
    held.next = held.prev = &held, poller = epoll_create1(0);
    if (bind(listener, (void *)&at, sizeof at) || listen(listener, 16384)
        || getsockname(listener, (void *)&at, &(socklen_t){sizeof at})) return perror("load server"), 1;
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &(struct epoll_event){EPOLLIN, {.ptr = NULL}});
    printf("%d\n", ntohs(at.sin_port)), fflush(stdout);
    for (struct epoll_event events[EVENTS];;) {
        int count = epoll_wait(poller, events, EVENTS, until_next_timer());
        for (int i = 0; i < count; i++) {
            Conn *c = events[i].data.ptr;
            if (!c) accept_all(listener);
            else if (events[i].events & EPOLLOUT && !go_on(c)) continue;
            else if (events[i].events & ~EPOLLOUT) receive(c);
        }
        run_timers();
    }
}
