import CBLAS
import CKernels
import LocalTraining
import Tensors
import TestSupport
import Testing

/// Martlet's own matrix products beside OpenBLAS's.
struct ProductTests {
    /// A case's sizes, each beyond a tile, a panel or a block of the inner dimension in some cases, with strides that leave gaps.
    private struct Shape {
        var rows, columns, inner: Int
        var transposesA, transposesB, adds: Bool
        var gap: Int

        init(using generator: inout Xoshiro256StarStar) {
            rows = Int.random(in: 1...70, using: &generator)
            columns = Int.random(in: 1...90, using: &generator)
            inner = Int.random(in: 1...600, using: &generator)
            transposesA = Bool.random(using: &generator)
            transposesB = Bool.random(using: &generator)
            adds = Bool.random(using: &generator)
            gap = Int.random(in: 0...2, using: &generator)
        }

        var strideA: Int { (transposesA ? rows : inner) + gap }
        var strideB: Int { (transposesB ? inner : columns) + gap }
        var strideC: Int { columns + gap }
        var countA: Int { strideA * (transposesA ? inner : rows) }
        var countB: Int { strideB * (transposesB ? columns : inner) }
    }

    @Test(.slow) func floatProductsAreThoseOfOpenBLAS() {
        var generator = Xoshiro256StarStar(seed: 3)
        for _ in 0..<300 {
            let shape = Shape(using: &generator)
            let a = (0..<shape.countA).map { _ in Float.random(in: -1...1, using: &generator) }
            let b = (0..<shape.countB).map { _ in Float.random(in: -1...1, using: &generator) }
            var ours = (0..<shape.strideC * shape.rows).map { _ in Float.random(in: -1...1, using: &generator) }
            var theirs = ours
            martlet_product_f32(
                shape.transposesA ? 1 : 0,
                shape.transposesB ? 1 : 0,
                shape.rows,
                shape.columns,
                shape.inner,
                a,
                shape.strideA,
                b,
                shape.strideB,
                shape.adds ? 1 : 0,
                &ours,
                shape.strideC
            )
            cblas_sgemm(
                101,
                shape.transposesA ? 112 : 111,
                shape.transposesB ? 112 : 111,
                Int32(shape.rows),
                Int32(shape.columns),
                Int32(shape.inner),
                1,
                a,
                Int32(shape.strideA),
                b,
                Int32(shape.strideB),
                shape.adds ? 1 : 0,
                &theirs,
                Int32(shape.strideC)
            )
            // Sums of up to 600 products of size 1, in another order: n units of 2^-24 on sums of about sqrt(n), with room.
            let worst = zip(ours, theirs).map { abs($0 - $1) }.max() ?? 0
            #expect(worst < 1e-4, "\(shape)")
            // What lies between the rows is nobody's.
            let beyond = (0..<shape.rows).flatMap { row in
                (shape.columns..<shape.strideC).map {
                    ours[row * shape.strideC + $0] == theirs[row * shape.strideC + $0]
                }
            }
            #expect(beyond.allSatisfy { $0 }, "\(shape)")
        }
    }

    @Test(.slow) func doubleProductsAreThoseOfOpenBLAS() {
        var generator = Xoshiro256StarStar(seed: 4)
        for _ in 0..<100 {
            let shape = Shape(using: &generator)
            let a = (0..<shape.countA).map { _ in Double.random(in: -1...1, using: &generator) }
            let b = (0..<shape.countB).map { _ in Double.random(in: -1...1, using: &generator) }
            var ours = (0..<shape.strideC * shape.rows).map { _ in Double.random(in: -1...1, using: &generator) }
            var theirs = ours
            martlet_product_f64(
                shape.transposesA ? 1 : 0,
                shape.transposesB ? 1 : 0,
                shape.rows,
                shape.columns,
                shape.inner,
                a,
                shape.strideA,
                b,
                shape.strideB,
                shape.adds ? 1 : 0,
                &ours,
                shape.strideC
            )
            cblas_dgemm(
                101,
                shape.transposesA ? 112 : 111,
                shape.transposesB ? 112 : 111,
                Int32(shape.rows),
                Int32(shape.columns),
                Int32(shape.inner),
                1,
                a,
                Int32(shape.strideA),
                b,
                Int32(shape.strideB),
                shape.adds ? 1 : 0,
                &theirs,
                Int32(shape.strideC)
            )
            #expect((zip(ours, theirs).map { abs($0 - $1) }.max() ?? 0) < 1e-12, "\(shape)")
        }
    }

    /// A product over nothing is zero, or leaves what was there.
    @Test func anEmptySumIsZero() {
        var values: [Float] = [1, 2]
        martlet_product_f32(0, 0, 1, 2, 0, [], 1, [], 2, 1, &values, 2)
        #expect(values == [1, 2])
        martlet_product_f32(0, 0, 1, 2, 0, [], 1, [], 2, 0, &values, 2)
        #expect(values == [0, 0])
    }
}
