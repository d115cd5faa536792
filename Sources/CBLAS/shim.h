#pragma once

// The four BLAS calls that Martlet uses, and OpenBLAS's thread control. Declared here so that no Debian include
// path (which differs by architecture) has to be known.

enum { MARTLET_ROW_MAJOR = 101, MARTLET_NO_TRANS = 111, MARTLET_TRANS = 112 };

void cblas_sgemm(int order, int trans_a, int trans_b, int m, int n, int k, float alpha, const float *a, int lda,
                 const float *b, int ldb, float beta, float *c, int ldc);
void cblas_dgemm(int order, int trans_a, int trans_b, int m, int n, int k, double alpha, const double *a, int lda,
                 const double *b, int ldb, double beta, double *c, int ldc);
void cblas_saxpy(int n, float alpha, const float *x, int incx, float *y, int incy);
void cblas_daxpy(int n, double alpha, const double *x, int incx, double *y, int incy);
void openblas_set_num_threads(int num_threads);
