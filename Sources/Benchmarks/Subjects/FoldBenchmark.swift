import Aggregation
import ArgumentParser
import BenchmarkHarness
import CKernels
import Foundation
import Tensors
import UpdateCompression

/// The weighted mean of K updates: from memory and from files, against memory bandwidth, `pread` and NumPy.
struct FoldBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fold",
        abstract: "Sum K updates of N parameters (NumPy is used where python3 has it)."
    )

    @Option(help: "Updates.") var updates = 32
    @Option(help: "Parameters.") var parameters = 25_000_000
    @Option(help: "Repeats.") var repeats = 5
    @Option(help: "Encodings of the files, besides f32, separated by commas.") var encodings = "f16,bf16,int8,int4,topk"
    @Option(help: "A Python with numpy.") var python = "python3"

    func run() throws {
        let workspace = try ScratchDirectory()
        let layout = ParameterLayout([.init(name: "w", shape: [parameters])])
        var generator = Xoshiro256StarStar(seed: 1)
        let pattern = (0..<65_536).map { _ in generator.nextUniform() - 0.5 }
        let update = ParameterVector(
            layout: layout,
            values: (0..<parameters).map { pattern[($0 * 7 + $0 >> 16) & 65_535] }
        )
        let bytes = Double(updates * parameters * 4)
        try measureMemory(update.values, bytes: bytes)
        try measureFiles(update, .f32, workspace, repeats: repeats)
        for name in encodings.split(separator: ",") {
            guard let encoding = UpdateEncoding(rawValue: String(name)) else {
                throw ValidationError("there is no encoding '\(name)'")
            }
            try measureFiles(update, encoding, workspace, repeats: max(1, repeats / 2))
        }
    }

    private func measureMemory(_ values: [Float], bytes: Double) throws {
        let buffers = (0..<updates).map { _ in UnsafeMutableBufferPointer<Float>.allocate(capacity: parameters) }
        defer { for buffer in buffers { buffer.deallocate() } }
        for buffer in buffers {
            // As the allocator gives large pages where the system may: both the sum and its limit read the same memory.
            martlet_prefer_huge_pages(buffer.baseAddress, Int64(4 * parameters))
            _ = buffer.initialize(from: values)
        }
        let inputs = buffers.compactMap { $0.baseAddress.map { (values: UnsafePointer($0), weight: 3) } }
        let (base, optimizer) = ([Float](repeating: 0.5, count: parameters), FedAvg())
        var (next, state) = (base, OptimizerState(initialFor: optimizer, parameterCount: parameters))
        next[0] = 0.25  // Memory of its own, outside the measurement.
        next[0] = 0.5
        var limits: [Double] = []
        var results: [Double] = []
        _ = MemoryBandwidth.read(buffers.map { UnsafeRawBufferPointer($0) })
        for _ in 0..<repeats {
            limits.append(bytes / MemoryBandwidth.read(buffers.map { UnsafeRawBufferPointer($0) }))
            // As a round does it: the blocks of the mean take their step into the next model.
            let seconds = try Stopwatch.seconds {
                try optimizer.stepping(&next, state: &state) { receiver throws(AggregationError) in
                    try FixedPointMean.means(of: inputs, count: parameters, valueBound: 64, to: receiver)
                }
            }
            results.append(bytes / seconds)
            precondition(abs(next[1] - base[1] - values[1]) <= 0x1p-20, "the mean of equal updates is the update")
            for index in next.indices { next[index] = base[index] }
        }
        let limit = MeasuredCase(benchmark: "fold", name: "memory", unit: "bytes/s", values: limits).median
        MeasuredCase(
            benchmark: "fold",
            name: "f32 k=\(updates) n=\(parameters) in memory",
            unit: "bytes/s",
            values: results,
            limit: limit,
            limitName: "read bandwidth over the same bytes, all cores",
            required: 0.6
        ).report()
        try compareWithNumPy(seconds: bytes / results.sorted()[results.count / 2])
    }

    /// NumPy's weighted mean of stacked arrays, with the same number of updates and parameters.
    private func compareWithNumPy(seconds: Double) throws {
        let script = """
            import numpy, time
            stack = numpy.full((\(updates), \(parameters)), 0.25, numpy.float32)
            weights = numpy.full(\(updates), 3.0, numpy.float32)
            times = []
            for _ in range(3):
                start = time.perf_counter()
                mean = numpy.average(stack, axis=0, weights=weights)
                times.append(time.perf_counter() - start)
            print(sorted(times)[1])
            """
        guard let output = try? Command.run([python, "-c", script]).output,
            let peer = Double(output.trimmingCharacters(in: .whitespacesAndNewlines))
        else { return }
        MeasuredCase(
            benchmark: "fold",
            name: "speed over numpy.average k=\(updates) n=\(parameters)",
            unit: "times",
            values: [peer / seconds],
            limit: 5,
            limitName: "asked for",
            required: 1,
            extra: ["numpy_seconds": peer, "seconds": seconds]
        ).report()
    }

    private func measureFiles(
        _ update: ParameterVector,
        _ encoding: UpdateEncoding,
        _ workspace: ScratchDirectory,
        repeats: Int
    )
        throws
    {
        var residual: [Float] = []
        let data = UpdateEncoder.encode(update, as: encoding, metadata: [:], seed: 7, residual: &residual)
        let paths = (0..<updates).map { workspace.path + "/\(encoding.rawValue)-\($0)" }
        for path in paths { try data.write(to: URL(fileURLWithPath: path)) }
        defer { for path in paths { try? FileManager.default.removeItem(atPath: path) } }
        let spooled = paths.map { SpooledUpdate(path: $0, weight: 3) }
        let bytes = Double(data.count * updates)
        let optimizer = FedAvg()
        var next = [Float](repeating: 0.5, count: parameters)
        var state = OptimizerState(initialFor: optimizer, parameterCount: parameters)
        var limits: [Double] = []
        var results: [Double] = []
        _ = try MemoryBandwidth.pread(paths)
        for _ in 0..<repeats {
            limits.append(bytes / (try MemoryBandwidth.pread(paths)))
            results.append(
                bytes
                    / (try Stopwatch.seconds {
                        try optimizer.stepping(&next, state: &state) { receiver throws(AggregationError) in
                            try FixedPointMean.means(of: spooled, layout: update.layout, valueBound: 64, to: receiver)
                        }
                    })
            )
        }
        MeasuredCase(
            benchmark: "fold",
            name: "\(encoding.rawValue) k=\(updates) n=\(parameters) from cached files",
            unit: "bytes/s",
            values: results,
            limit: MeasuredCase(benchmark: "", name: "", unit: "", values: limits).median,
            limitName: "pread of the same files, all cores",
            required: encoding == .f32 ? 0.7 : nil,
            extra: ["values_per_second": Double(updates * parameters) * results.sorted()[results.count / 2] / bytes]
        ).report()
    }
}
