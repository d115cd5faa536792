#pragma once

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

// Swift cannot call macros: one function for each that the server needs.

static inline long martlet_tls_set_min_version(SSL_CTX *context, int version) {
    return SSL_CTX_set_min_proto_version(context, version);
}

static inline void martlet_tls_harden(SSL_CTX *context) {
    SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET
        | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(context, 0);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
        | SSL_MODE_RELEASE_BUFFERS);
}

static inline long martlet_tls_set_groups(SSL_CTX *context, const char *groups) {
    return SSL_CTX_set1_groups_list(context, groups);
}

static int martlet_tls_select_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_length,
    const unsigned char *in, unsigned int in_length, void *argument) {
    (void)ssl;
    (void)argument;
    static const unsigned char ours[] = "\x08http/1.1";
    unsigned char *chosen = NULL;
    if (SSL_select_next_proto(&chosen, out_length, ours, sizeof(ours) - 1, in, in_length) != OPENSSL_NPN_NEGOTIATED) {
        return SSL_TLSEXT_ERR_NOACK;
    }
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static inline void martlet_tls_offer_http(SSL_CTX *context) {
    SSL_CTX_set_alpn_select_cb(context, martlet_tls_select_protocol, NULL);
}

/// The reason code of the last error of this thread; the queue is emptied.
static inline int martlet_tls_last_reason(void) {
    unsigned long code = ERR_peek_last_error();
    ERR_clear_error();
    return ERR_GET_REASON(code);
}

/// SHA-256 of the certificate's public key (its SubjectPublicKeyInfo in DER), as pins are computed; 0 on failure.
static inline int martlet_tls_public_key_hash(X509 *certificate, unsigned char *hash) {
    unsigned char *der = NULL;
    int length = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(certificate), &der);
    if (length <= 0) { return 0; }
    unsigned int size = 32;
    int done = EVP_Digest(der, (size_t)length, hash, &size, EVP_sha256(), NULL);
    OPENSSL_free(der);
    return done;
}

/// The end of the context's own certificate as Unix time; 0 when there is none.
static inline long long martlet_tls_expiry(SSL_CTX *context) {
    X509 *certificate = SSL_CTX_get0_certificate(context);
    if (certificate == NULL) { return 0; }
    ASN1_TIME *epoch = ASN1_TIME_set(NULL, 0);
    int days = 0, seconds = 0;
    int done = ASN1_TIME_diff(&days, &seconds, epoch, X509_get0_notAfter(certificate));
    ASN1_TIME_free(epoch);
    return done ? (long long)days * 86400 + seconds : 0;
}
