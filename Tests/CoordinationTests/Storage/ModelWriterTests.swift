import Crypto
import Foundation
import Synchronization
import Tensors
import TestSupport
import Testing

@testable import Coordination

struct ModelWriterTests {
    private static func model(count: Int) -> ParameterVector {
        var generator = Xoshiro256StarStar(seed: 5)
        return ParameterVector(
            layout: ParameterLayout([
                .init(name: "a", shape: [count / 3]), .init(name: "b", shape: [count - count / 3]),
            ]),
            values: (0..<count).map { _ in generator.nextUniform() - 0.5 }
        )
    }

    private static func files(_ directory: TemporaryDirectory) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: directory.path)
    }

    @Test(arguments: [1, 2, 3])
    func blocksInAnyOrderFromAnyThreadMakeTheSameFile(seed: UInt64) throws {
        let directory = try TemporaryDirectory()
        let model = Self.model(count: 100_003)
        let writer = try ModelWriter(model.layout, metadata: ["format": "martlet"], path: directory.path + "/model")
        var generator = Xoshiro256StarStar(seed: seed)
        var starts = Array(stride(from: 0, to: model.values.count, by: 1000))
        for index in starts.indices.dropFirst() {
            starts.swapAt(index, Int(generator.nextUniform() * Float(index)))
        }
        let order = starts
        model.values.withUnsafeBufferPointer { buffer in
            nonisolated(unsafe) let base = buffer.baseAddress
            Parallel.forEach(count: order.count) { index in
                guard let base else { return }
                writer.put(order[index]..<min(model.values.count, order[index] + 1000), of: base)
            }
        }
        #expect(try Self.files(directory).allSatisfy { $0.hasPrefix("model.part-") }, "no name before the end")
        let sha256 = try writer.finish()
        let expected = SafetensorsWriter.encode(model, metadata: ["format": "martlet"])
        #expect(try Data(contentsOf: URL(fileURLWithPath: directory.path + "/model")) == expected)
        #expect(sha256 == SHA256.hash(data: expected).map { String(format: "%02x", $0) }.joined())
        #expect(writer.byteCount == expected.count && writer.isFinite)
        #expect(try Self.files(directory) == ["model"])
    }

    @Test func aWriterThatIsLetGoLeavesNothing() throws {
        let directory = try TemporaryDirectory()
        let model = Self.model(count: 10)
        do {
            let writer = try ModelWriter(model.layout, metadata: [:], path: directory.path + "/model")
            writer.put(model.values)
            #expect(try Self.files(directory).count == 1)
        }
        #expect(try Self.files(directory).isEmpty)
    }

    @Test func oneValueThatIsNotFiniteIsSeen() throws {
        let directory = try TemporaryDirectory()
        var model = Self.model(count: 200_000)
        model.values[199_999] = .nan
        let writer = try ModelWriter(model.layout, metadata: [:], path: directory.path + "/model")
        writer.put(model.values)
        #expect(!writer.isFinite)
    }

    @Test func aModelThatNoDiskHoldsIsRefusedBeforeTheWork() throws {
        let directory = try TemporaryDirectory()
        let layout = ParameterLayout([.init(name: "w", shape: [1 << 40])])
        let error = #expect(throws: CoordinationError.self) {
            try ModelWriter(layout, metadata: [:], path: directory.path + "/model")
        }
        #expect(error?.code == "storage_failed")
        #expect(try Self.files(directory).isEmpty)
    }
}
