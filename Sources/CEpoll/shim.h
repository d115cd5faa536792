#pragma once

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/sendfile.h>

// Swift's Glibc overlay has no epoll.

static inline int martlet_epoll_add(int poll, int descriptor, unsigned long long id, int edge_triggered) {
    struct epoll_event event;
    event.events = edge_triggered ? (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET) : EPOLLIN;
    event.data.u64 = id;
    return epoll_ctl(poll, EPOLL_CTL_ADD, descriptor, &event);
}

static inline int martlet_epoll_remove(int poll, int descriptor) {
    return epoll_ctl(poll, EPOLL_CTL_DEL, descriptor, 0);
}

static inline unsigned long long martlet_event_id(const struct epoll_event *event) { return event->data.u64; }
static inline int martlet_event_is_readable(const struct epoll_event *event) {
    return (event->events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
}
static inline int martlet_event_is_writable(const struct epoll_event *event) {
    return (event->events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0;
}
static inline int martlet_event_is_half_closed(const struct epoll_event *event) {
    return (event->events & EPOLLRDHUP) != 0;
}
static inline int martlet_event_is_hangup(const struct epoll_event *event) {
    return (event->events & (EPOLLHUP | EPOLLERR)) != 0;
}
