#pragma once

#include <curl/curl.h>

// Swift cannot call variadic functions: one wrapper for each kind of option.

static inline CURLcode martlet_set_long(CURL *handle, CURLoption option, long value) {
    return curl_easy_setopt(handle, option, value);
}

static inline CURLcode martlet_set_offset(CURL *handle, CURLoption option, curl_off_t value) {
    return curl_easy_setopt(handle, option, value);
}

static inline CURLcode martlet_set_string(CURL *handle, CURLoption option, const char *value) {
    return curl_easy_setopt(handle, option, value);
}

static inline CURLcode martlet_set_pointer(CURL *handle, CURLoption option, void *value) {
    return curl_easy_setopt(handle, option, value);
}

// Only HTTP, whatever libcurl can speak; Ubuntu 22.04 has a libcurl from before the option that takes names.
static inline CURLcode martlet_allow_http_only(CURL *handle) {
#if LIBCURL_VERSION_NUM >= 0x075500
    return curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
#else
    return curl_easy_setopt(handle, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
}

typedef size_t (*martlet_data_callback)(char *, size_t, size_t, void *);

static inline CURLcode martlet_set_callback(CURL *handle, CURLoption option, martlet_data_callback value) {
    return curl_easy_setopt(handle, option, value);
}

// Called at least once a second while a transfer is under way; any other value than 0 ends it.
static inline CURLcode martlet_set_progress(CURL *handle, curl_xferinfo_callback value, void *context) {
    curl_easy_setopt(handle, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(handle, CURLOPT_XFERINFODATA, context);
    return curl_easy_setopt(handle, CURLOPT_XFERINFOFUNCTION, value);
}

static inline CURLcode martlet_get_long(CURL *handle, CURLINFO info, long *value) {
    return curl_easy_getinfo(handle, info, value);
}

static inline CURLMcode martlet_multi_set_long(CURLM *handle, CURLMoption option, long value) {
    return curl_multi_setopt(handle, option, value);
}
