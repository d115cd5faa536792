import Foundation
import Tensors
import TestSupport
import Testing
import UpdateCompression

/// Files of one test, gone afterwards.
final class Scratchpad {
    let path = NSTemporaryDirectory() + "encodings-\(UUID().uuidString)/"
    init() throws { try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true) }
    deinit { try? FileManager.default.removeItem(atPath: path) }

    func write(_ data: Data, _ name: String = "u") throws -> String {
        try data.write(to: URL(fileURLWithPath: path + name))
        return path + name
    }
}

func normalVector(_ layout: ParameterLayout, seed: UInt64) -> ParameterVector {
    var generator = Xoshiro256StarStar(seed: seed)
    let values = (0..<layout.parameterCount).map { _ -> Float in
        // Box-Muller.
        let radius = (-2 * log(1 - Double(generator.nextUniform()))).squareRoot()
        return Float(radius * cos(2 * .pi * Double(generator.nextUniform())))
    }
    return ParameterVector(layout: layout, values: values)
}

func squaredError(_ left: [Float], _ right: [Float]) -> Double {
    zip(left, right).reduce(0.0) { $0 + (Double($1.0) - Double($1.1)) * (Double($1.0) - Double($1.1)) }
}

struct UpdateEncodingTests {
    static let layout = ParameterLayout([
        .init(name: "a", shape: [37, 11]), .init(name: "b", shape: [3]), .init(name: "c", shape: [5000]),
        .init(name: "d", shape: []),
    ])
    private let scratch: Scratchpad

    init() throws { scratch = try Scratchpad() }

    private func roundTrip(_ update: ParameterVector, _ encoding: UpdateEncoding, seed: UInt64) throws -> [Float] {
        var residual: [Float] = []
        let data = UpdateEncoder.encode(update, as: encoding, metadata: [:], seed: seed, residual: &residual)
        let file = try UpdateFile(path: scratch.write(data), layout: update.layout)
        #expect(file.encoding == encoding)
        var values = [Float](repeating: .nan, count: update.values.count)
        try file.read(0..<values.count, into: &values)
        return values
    }

    @Test(arguments: UpdateEncoding.allCases)
    func everyRangeReadsWhatTheWholeReads(encoding: UpdateEncoding) throws {
        let update = normalVector(Self.layout, seed: 5)
        var residual: [Float] = []
        let data = UpdateEncoder.encode(update, as: encoding, metadata: ["k": "v"], seed: 9, residual: &residual)
        let limit = encoding.byteLimit(parameterCount: update.values.count, tensorCount: 4)
        #expect(data.count <= limit + 4096, "\(data.count) of \(limit)")
        let file = try UpdateFile(path: scratch.write(data), layout: Self.layout)
        #expect(file.metadata["k"] == "v")
        let count = Self.layout.parameterCount
        var whole = [Float](repeating: 0, count: count)
        try file.read(0..<count, into: &whole)
        var generator = Xoshiro256StarStar(seed: 1)
        for _ in 0..<60 {
            let start = generator.nextIndex(below: count)
            let range = start..<(start + 1 + generator.nextIndex(below: count - start))
            var part = [Float](repeating: 0, count: range.count)
            try file.read(range, into: &part)
            #expect(part == Array(whole[range]), "\(range)")
        }
        #expect(
            abs(try file.check(bound: 100) - VectorKernels.squaredNorm(whole)) < 1e-6 * VectorKernels.squaredNorm(whole)
        )
    }

    /// Published: 0.571 (DRIVE), 0.133 and 0.0096 (EDEN) for 1, 2 and 4 bits.
    ///
    /// Over 30 draws of 8,192 normal values the mean's standard deviation is below 1 %; 4 % is more than four of them.
    @Test(arguments: [(UpdateEncoding.rotated1, 0.571), (.rotated2, 0.133), (.rotated4, 0.0096)])
    func rotatedErrorsAreThePublishedOnes(encoding: UpdateEncoding, published: Double) throws {
        let layout = ParameterLayout([.init(name: "w", shape: [8192])])
        var sum = 0.0
        for draw in 0..<30 {
            let update = normalVector(layout, seed: UInt64(draw))
            let decoded = try roundTrip(update, encoding, seed: UInt64(1000 + draw))
            sum += squaredError(decoded, update.values) / VectorKernels.squaredNorm(update.values)
        }
        #expect(abs(sum / 30 - published) < 0.04 * published, "\(sum / 30)")
    }

    /// The bounds are those of stochastic rounding to the encoding's steps.
    @Test(arguments: [(UpdateEncoding.f32, 0.0), (.f16, 0x1p-20), (.bf16, 0x1p-14), (.int8, 3e-4), (.int4, 0.08)])
    func errorsAreWithinTheEncodingsSteps(encoding: UpdateEncoding, limit: Double) throws {
        let update = normalVector(ParameterLayout([.init(name: "w", shape: [20_000])]), seed: 3)
        let decoded = try roundTrip(update, encoding, seed: 4)
        #expect(squaredError(decoded, update.values) <= limit * VectorKernels.squaredNorm(update.values))
    }

    /// The mean of n decoded vectors comes as near to the vector as independent errors of mean zero do.
    ///
    /// Within 4 · error/n, where a bias of a tenth of the error would already show. Dense values, and few among zeros.
    @Test(.slow, arguments: UpdateEncoding.allCases.filter { $0.isStochastic }, [false, true])
    func decodedValuesAreUnbiased(encoding: UpdateEncoding, isSparse: Bool) throws {
        let layout = ParameterLayout([.init(name: "w", shape: [600])])
        var update = normalVector(layout, seed: 21)
        if isSparse { for index in 0..<600 where index % 50 != 0 { update.values[index] = 0 } }
        let count = 400
        var mean = [Double](repeating: 0, count: 600)
        var error = 0.0
        for draw in 0..<count {
            let decoded = try roundTrip(update, encoding, seed: UInt64(7000 + draw))
            error += squaredError(decoded, update.values) / Double(count)
            for index in 0..<600 { mean[index] += Double(decoded[index]) / Double(count) }
        }
        let bias = zip(mean, update.values).reduce(0.0) { $0 + ($1.0 - Double($1.1)) * ($1.0 - Double($1.1)) }
        #expect(bias <= 4 * error / Double(count) + 1e-12, "\(bias) against \(error)")
    }

    @Test func topKKeepsTheLargestAndLosesNothingOverTime() throws {
        let layout = ParameterLayout([.init(name: "w", shape: [1000])])
        let update = normalVector(layout, seed: 8)
        var residual: [Float] = []
        var sent = [Double](repeating: 0, count: 1000)
        for round in 0..<50 {
            let data = UpdateEncoder.encode(update, as: .topk, metadata: [:], seed: 0, residual: &residual)
            let file = try UpdateFile(path: scratch.write(data), layout: layout)
            var values = [Float](repeating: 0, count: 1000)
            try file.read(0..<1000, into: &values)
            #expect(values.filter { $0 != 0 }.count == 10)
            if round == 0 {
                let kept = values.map { abs($0) }.filter { $0 > 0 }.min() ?? 0
                #expect(zip(values, update.values).allSatisfy { $0 == $1 || ($0 == 0 && abs($1) <= kept) })
            }
            for index in 0..<1000 { sent[index] += Double(values[index]) }
        }
        // What was sent and what is kept back are together all that came in, up to float rounding.
        for index in 0..<1000 {
            #expect(abs(sent[index] + Double(residual[index]) - 50 * Double(update.values[index])) < 1e-3)
        }
    }

    @Test func zerosAndExtremesStayFinite() throws {
        let layout = ParameterLayout([.init(name: "w", shape: [300])])
        for values in [
            [Float](repeating: 0, count: 300), [Float](repeating: .leastNonzeroMagnitude, count: 300),
            (0..<300).map { $0 % 2 == 0 ? 1e30 : -1e-30 },
        ] {
            for encoding in UpdateEncoding.allCases {
                let decoded = try roundTrip(ParameterVector(layout: layout, values: values), encoding, seed: 2)
                #expect(decoded.allSatisfy { $0.isFinite }, "\(encoding)")
            }
        }
    }
}
