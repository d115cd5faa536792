import Foundation
import Synchronization

/// The discrete Fourier transform of a power-of-two length, split into real and imaginary parts.
///
/// Stockham's self-sorting algorithm in radix 4 with one radix-2 stage if needed: unit strides, no bit reversal.
/// Twiddles come from `sin` and `cos` directly, so the error grows as √(log n) ulps and no faster.
struct FourierTransform: Sendable {
    let count: Int
    private let cosines: [Double]
    private let sines: [Double]

    private static let known = Mutex<[Int: FourierTransform]>([:])

    /// The transform of a length, from a cache that keeps lengths up to 2¹⁹.
    static func shared(count: Int) -> FourierTransform {
        if let transform = known.withLock({ $0[count] }) { return transform }
        let transform = FourierTransform(count: count)
        if count <= 1 << 19 { known.withLock { $0[count] = transform } }
        return transform
    }

    init(count: Int) {
        precondition(count > 0 && count & (count - 1) == 0, "the length must be a power of two")
        self.count = count
        let quarter = max(1, count / 4)
        var cosines = [Double](repeating: 0, count: 3 * quarter)
        var sines = cosines
        for index in 0..<(3 * quarter) {
            let angle = 2 * Double.pi * Double(index) / Double(count)
            cosines[index] = cos(angle)
            sines[index] = sin(angle)
        }
        self.cosines = cosines
        self.sines = sines
    }

    /// Transforms in place: `X[k] = Σ x[j] e^{∓2πi jk/n}`, minus for forward; nothing is scaled.
    func transform(_ real: inout [Double], _ imaginary: inout [Double], inverse: Bool = false) {
        precondition(real.count == count && imaginary.count == count, "the arrays must have the transform's length")
        var otherReal = [Double](repeating: 0, count: count)
        var otherImaginary = otherReal
        let isInPlace = real.withUnsafeMutableBufferPointer { a in
            imaginary.withUnsafeMutableBufferPointer { b in
                otherReal.withUnsafeMutableBufferPointer { c in
                    otherImaginary.withUnsafeMutableBufferPointer { d in
                        // The inverse is the forward transform with the parts exchanged.
                        inverse ? run((b, a), (d, c)) : run((a, b), (c, d))
                    }
                }
            }
        }
        guard !isInPlace else { return }
        swap(&real, &otherReal)
        swap(&imaginary, &otherImaginary)
    }

    private typealias Buffer = (re: UnsafeMutableBufferPointer<Double>, im: UnsafeMutableBufferPointer<Double>)

    /// - Returns: Whether the result is in the first buffer.
    private func run(_ first: Buffer, _ second: Buffer) -> Bool {
        var (source, target) = (first, second)
        var (length, stride) = (count, 1)
        var isFirst = true
        while length > 1 {
            if length % 4 == 0 {
                radix4(source, target, length: length, stride: stride)
                length /= 4
                stride *= 4
            } else {
                radix2(source, target, stride: stride)
                length /= 2
                stride *= 2
            }
            swap(&source, &target)
            isFirst.toggle()
        }
        return isFirst
    }

    private func radix2(_ x: Buffer, _ y: Buffer, stride s: Int) {
        for q in 0..<s {
            let (ar, ai, br, bi) = (x.re[q], x.im[q], x.re[q + s], x.im[q + s])
            y.re[q] = ar + br
            y.im[q] = ai + bi
            y.re[q + s] = ar - br
            y.im[q + s] = ai - bi
        }
    }

    private func radix4(_ x: Buffer, _ y: Buffer, length: Int, stride s: Int) {
        let quarter = length / 4
        let jump = s * quarter
        guard let xr = x.re.baseAddress, let xi = x.im.baseAddress, let yr = y.re.baseAddress, let yi = y.im.baseAddress
        else { return }
        cosines.withUnsafeBufferPointer { cosines in
            sines.withUnsafeBufferPointer { sines in
                for p in 0..<quarter {
                    let (c1, s1) = (cosines[p * s], -sines[p * s])
                    let (c2, s2) = (cosines[2 * p * s], -sines[2 * p * s])
                    let (c3, s3) = (cosines[3 * p * s], -sines[3 * p * s])
                    let (ar, ai) = (xr + p * s, xi + p * s)
                    let (br, bi) = (ar + jump, ai + jump)
                    let (cr, ci) = (br + jump, bi + jump)
                    let (dr, di) = (cr + jump, ci + jump)
                    let (er, ei) = (yr + 4 * p * s, yi + 4 * p * s)
                    for q in 0..<s {
                        let (sumR, sumI) = (ar[q] + cr[q], ai[q] + ci[q])
                        let (difR, difI) = (ar[q] - cr[q], ai[q] - ci[q])
                        let (oddR, oddI) = (br[q] + dr[q], bi[q] + di[q])
                        // i·(b − d)
                        let (turnR, turnI) = (di[q] - bi[q], br[q] - dr[q])
                        er[q] = sumR + oddR
                        ei[q] = sumI + oddI
                        let (u1, v1) = (difR - turnR, difI - turnI)
                        er[q + s] = u1 * c1 - v1 * s1
                        ei[q + s] = u1 * s1 + v1 * c1
                        let (u2, v2) = (sumR - oddR, sumI - oddI)
                        er[q + 2 * s] = u2 * c2 - v2 * s2
                        ei[q + 2 * s] = u2 * s2 + v2 * c2
                        let (u3, v3) = (difR + turnR, difI + turnI)
                        er[q + 3 * s] = u3 * c3 - v3 * s3
                        ei[q + 3 * s] = u3 * s3 + v3 * c3
                    }
                }
            }
        }
    }
}
