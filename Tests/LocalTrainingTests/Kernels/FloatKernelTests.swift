import Foundation
import LocalTraining
import Tensors
import Testing

/// The vectorised kernels of Float against the plain loops of Double.
struct FloatKernelTests {
    private func numbers(_ count: Int, in range: ClosedRange<Float>, seed: UInt64) -> [Float] {
        var generator = Xoshiro256StarStar(seed: seed)
        return (0..<count).map { _ in
            range.lowerBound + (range.upperBound - range.lowerBound) * generator.nextUniform()
        }
    }

    /// Tiles of four, two and one rows, 32 and 16 columns, and what is left over; on both sides of the library's threshold.
    @Test(arguments: [1, 2, 3, 4, 5, 7, 8, 9])
    func productsOfFewRowsAgree(rows: Int) {
        for (columns, inner) in [(384, 32), (32, 128), (33, 5), (15, 7), (1, 1), (47, 64), (700, 96)] {
            let a = numbers(rows * inner, in: -1...1, seed: 1)
            let b = numbers(inner * columns, in: -1...1, seed: 2)
            let start = numbers(rows * columns, in: -1...1, seed: 3)
            func product<Value: RecurrentScalar>(adds: Bool) -> [Value] {
                var c = start.map { Value($0) }
                a.map { Value($0) }.withMatrix(rows: rows, columns: inner) { a in
                    b.map { Value($0) }.withMatrix(rows: inner, columns: columns) { b in
                        c.withMutableMatrix(rows: rows, columns: columns) {
                            Value.multiplyFewRows(a, by: b, into: $0, adds: adds)
                        }
                    }
                }
                return c
            }
            for adds in [false, true] {
                let (c, wanted): ([Float], [Double]) = (product(adds: adds), product(adds: adds))
                // |values| <= 1, so a sum of n products is off by n half units at most.
                let tolerance = Double(inner + 1) * 0x1p-23
                for (left, right) in zip(c, wanted) { #expect(abs(Double(left) - right) <= tolerance) }
            }
        }
    }

    @Test func exponentialsAgree() {
        let x = numbers(1003, in: -87...20, seed: 4)
        var values = x
        let sum = Float.exponentialSum(&values, minus: 20, count: values.count)
        for (left, right) in zip(values, x) where right > -66 {
            let wanted = exp(Double(right - 20))
            #expect(abs(Double(left) - wanted) < 4e-7 * wanted)
        }
        let wanted = x.reduce(0.0) { $0 + exp(Double($1) - 20) }
        #expect(abs(Double(sum) - wanted) < 1e-5 * wanted)
        var lost: [Float] = [.nan, 0]
        #expect(Float.exponentialSum(&lost, minus: 0, count: 2).isNaN)
    }

    @Test func squashingFunctionsAgree() {
        let x = numbers(1003, in: -30...30, seed: 5)
        var sigmoid = x
        Float.sigmoid(&sigmoid, count: x.count)
        var tangent = [Float](repeating: 0, count: x.count)
        Float.hyperbolicTangent(x, into: &tangent, count: x.count)
        for index in x.indices {
            #expect(abs(Double(sigmoid[index]) - 1 / (1 + exp(-Double(x[index])))) < 3e-7)
            #expect(abs(Double(tangent[index]) - tanh(Double(x[index]))) < 5e-7)
        }
    }

    @Test(arguments: [1, 15, 16, 17, 100, 1003])
    func searchesAgree(count: Int) {
        let x = numbers(count, in: -5...5, seed: UInt64(count))
        let y = numbers(count, in: -1...1, seed: 6)
        #expect(Float.maximum(x, count: count) == x.max())
        #expect(Float.countAbove(1, x, count: count) == x.count { $0 > 1 })
        let wanted = zip(x, y).reduce(0.0) { $0 + Double($1.0) * Double($1.1) }
        #expect(abs(Double(Float.dot(x, y, count: count)) - wanted) < 1e-4)
    }

    @Test func theCellAgreesForwardAndBack() {
        let h = 37
        let gates = numbers(3 * h, in: -3...3, seed: 7)
        let before = numbers(h, in: -2...2, seed: 8)
        let dHidden = numbers(h, in: -1...1, seed: 9)
        let dCell = numbers(h, in: -1...1, seed: 10)
        func run<Value: RecurrentScalar>(_ type: Value.Type) -> [[Double]] {
            func convert(_ values: [Float]) -> [Value] { values.map { Value($0) } }
            let zeros = [Value](repeating: 0, count: 3 * h)
            var (gates, flow) = (convert(gates), convert(dCell))
            var (after, squashed, hidden, dGates) = (zeros, zeros, zeros, zeros)
            let before = convert(before)
            Value.cell(&gates, before: before, after: &after, squashed: &squashed, hidden: &hidden, count: h)
            Value.cellGradient(
                gates,
                before: before,
                squashed: squashed,
                dHidden: convert(dHidden),
                dCell: &flow,
                dGates: &dGates,
                count: h
            )
            return [gates, after, squashed, hidden, flow, dGates].map { $0.map { Double($0) } }
        }
        for (left, right) in zip(run(Float.self), run(Double.self)) {
            for (one, other) in zip(left, right) { #expect(abs(one - other) < 5e-6) }
        }
    }
}
