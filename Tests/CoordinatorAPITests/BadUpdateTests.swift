import Coordination
import Foundation
import Tensors
import TestBenches
import TestSupport
import Testing
import UpdateCompression

/// Updates that are wrong or hostile: each is refused by its code, and the round's model is the same to the bit as if it had
/// never been sent.
@Suite(.timeLimit(.minutes(10)))
struct BadUpdateTests {
    /// More values than one block of the check, so that the last block is not the first.
    private static let layout = ParameterLayout([
        .init(name: "a", shape: [7]), .init(name: "w", shape: [70_000]),
    ])
    private static let values = (0..<70_007).map { Float($0 % 19) / 8 - 1 }

    /// A file with this header; the length may lie.
    private static func file(_ header: String, length: UInt64? = nil, data: [UInt8]) -> [UInt8] {
        var json = Array(header.utf8)
        while json.count % 8 != 0 { json.append(0x20) }
        return withUnsafeBytes(of: (length ?? UInt64(json.count)).littleEndian) { Array($0) } + json + data
    }

    private static func plain(_ change: (inout [Float]) -> Void = { _ in }) -> [UInt8] {
        var values = values
        change(&values)
        let update = ParameterVector(layout: layout, values: values)
        return Array(SafetensorsWriter.encode(update, metadata: Service.base(layout)))
    }

    /// An update of an encoding, with some bytes of its sections overwritten.
    private static func encoded(
        _ encoding: UpdateEncoding,
        _ name: String,
        at index: Int,
        _ bytes: [UInt8]
    ) throws -> [UInt8] {
        var residual: [Float] = []
        var file = Array(
            UpdateEncoder.encode(
                ParameterVector(layout: layout, values: values),
                as: encoding,
                metadata: Service.base(layout),
                seed: 4,
                residual: &residual
            )
        )
        let length = Int(file[0]) | Int(file[1]) << 8 | Int(file[2]) << 16
        let json = try JSONSerialization.jsonObject(with: Data(file[8..<(8 + length)])) as? [String: Any]
        let entry = try #require(json?[name] as? [String: Any])
        let start = try #require((entry["data_offsets"] as? [Int])?.first)
        let place = 8 + length + start + index * bytes.count
        file.replaceSubrange(place..<(place + bytes.count), with: bytes)
        return file
    }

    private static func bytes(_ value: Float) -> [UInt8] { bytes(value.bitPattern) }
    private static func bytes(_ value: UInt32) -> [UInt8] { withUnsafeBytes(of: value.littleEndian) { Array($0) } }

    struct Case: Sendable, CustomTestStringConvertible {
        var name: String
        var code: String
        var encoding: UpdateEncoding = .f32
        var fields: [String: String] = [:]
        var body: @Sendable () throws -> [UInt8]
        var testDescription: String { name }
    }

    static let cases: [Case] = [
        Case(name: "a header of 10^12 bytes", code: "tensor_mismatch") {
            file("{}", length: 1_000_000_000_000, data: [])
        },
        Case(name: "a tensor of 10^12 values", code: "tensor_mismatch") {
            file(
                #"{"w":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}"#,
                data: [0, 0, 0, 0]
            )
        },
        Case(name: "10^4 tensors of nothing", code: "tensor_mismatch") {
            let entries = (0..<10_000).map { #""t\#($0)":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"# }
            return file("{" + entries.joined(separator: ",") + "}", data: [])
        },
        Case(name: "a shape whose product overflows", code: "tensor_mismatch") {
            file(
                #"{"w":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,0]}}"#,
                data: []
            )
        },
        Case(name: "a product that overflows to the right size", code: "tensor_mismatch") {
            // 2^62 times 4 bytes is 0 in 64 bits.
            file(#"{"w":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}}"#, data: [])
        },
        Case(name: "overlapping offsets", code: "tensor_mismatch") {
            file(
                #"{"a":{"dtype":"F32","shape":[7],"data_offsets":[0,28]},"w":{"dtype":"F32","shape":[70000],"data_offsets":[4,280004]}}"#,
                data: [UInt8](repeating: 0, count: 280_004)
            )
        },
        Case(name: "unaligned offsets with a gap", code: "tensor_mismatch") {
            file(
                #"{"a":{"dtype":"F32","shape":[7],"data_offsets":[0,28]},"w":{"dtype":"F32","shape":[70000],"data_offsets":[30,280030]}}"#,
                data: [UInt8](repeating: 0, count: 280_030)
            )
        },
        Case(name: "negative offsets", code: "tensor_mismatch") {
            file(#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}"#, data: [])
        },
        Case(name: "a NaN in the last block", code: "not_finite") { plain { $0[70_006] = .nan } },
        Case(name: "an infinity in the last block", code: "not_finite") { plain { $0[70_006] = -.infinity } },
        Case(name: "a value beyond the bound", code: "value_out_of_range") { plain { $0[70_006] = 64.5 } },
        Case(name: "a body that is too short", code: "tensor_mismatch") { Array(plain().dropLast(3)) },
        Case(name: "bytes after the last tensor", code: "tensor_mismatch") { plain() + [0, 0, 0, 0] },
        Case(
            name: "a wrong digest",
            code: "digest_mismatch",
            fields: ["Content-Digest": "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:"]
        ) { plain() },
        Case(name: "indices that do not ascend", code: "indices_invalid", encoding: .topk) {
            try encoded(.topk, "w.indices", at: 5, bytes(UInt32(1)))
        },
        Case(name: "an index out of range", code: "indices_invalid", encoding: .topk) {
            try encoded(.topk, "w.indices", at: 699, bytes(UInt32(70_000)))
        },
        Case(name: "a sparse NaN", code: "not_finite", encoding: .topk) {
            try encoded(.topk, "w.values", at: 699, bytes(Float.nan))
        },
        Case(name: "an infinity in 16 bits", code: "not_finite", encoding: .f16) {
            try encoded(.f16, "w", at: 69_999, [0x00, 0x7C])
        },
        Case(name: "a NaN in 16 bits", code: "not_finite", encoding: .f16) {
            try encoded(.f16, "w", at: 69_999, [0x01, 0xFC])
        },
        Case(name: "an infinity in bfloat16", code: "not_finite", encoding: .bf16) {
            try encoded(.bf16, "w", at: 69_999, [0x80, 0xFF])
        },
        Case(name: "a scale of zero", code: "scale_invalid", encoding: .int8) {
            try encoded(.int8, "w.scale", at: 546, bytes(Float(0)))
        },
        Case(name: "an infinite scale", code: "scale_invalid", encoding: .int8) {
            try encoded(.int8, "w.scale", at: 546, bytes(Float.infinity))
        },
        Case(name: "a scale of zero for 4 bits", code: "scale_invalid", encoding: .int4) {
            try encoded(.int4, "w.scale", at: 2187, bytes(Float(0)))
        },
        Case(name: "an infinite scale after a rotation", code: "scale_invalid", encoding: .rotated1) {
            try encoded(.rotated1, "w.scale", at: 17, bytes(Float.infinity))
        },
        Case(name: "a scale that makes values too large", code: "value_out_of_range", encoding: .int8) {
            try encoded(.int8, "w.scale", at: 546, bytes(Float(1e20)))
        },
    ]

    @Test(.slow, arguments: cases)
    func aBadUpdateIsRefusedAndLeavesNoTrace(_ bad: Case) async throws {
        let clean = try await Self.model(encoding: bad.encoding, between: nil)
        let disturbed = try await Self.model(encoding: bad.encoding) { service, token, url in
            let answer = try await service.call("PUT", url, token: token, try bad.body(), bad.fields)
            #expect((400..<500).contains(answer.status) && answer.code == bad.code, "\(answer.status) \(answer.json)")
            let spool = service.coordinator.blobs.spoolNames()
            #expect(spool.count == 1, "only the accepted update is left: \(spool)")
        }
        #expect(clean == disturbed)
    }

    /// The model that two good updates make, the second of which may come after something else.
    private static func model(
        encoding: UpdateEncoding,
        between: ((_ service: Service, _ token: String, _ url: String) async throws -> Void)?
    ) async throws -> [UInt8] {
        let service = try await Service()
        let (run, first, assignment) = try await service.assigned(encoding: encoding.rawValue, layout: layout)
        // Over-selection has a place for a third client: a refused update ends its assignment.
        func joined() async throws -> (token: String, url: String) {
            let enrollment = try #require(
                try await service.post("/v1/populations/p/enrollment-tokens", #"{"max_uses": 1}"#).json["token"]
                    as? String
            )
            let token = try #require(try await service.post("/v1/clients", token: enrollment).json["token"] as? String)
            let assignment = try #require(
                try await service.post("/v1/checkins", token: token).json["assignment"] as? [String: Any]
            )
            return (token, try #require(assignment["update_url"] as? String))
        }
        let (bad, second) = (try await joined(), try await joined())
        func good(_ factor: Float) -> [UInt8] {
            var residual: [Float] = []
            let update = ParameterVector(layout: layout, values: values.map { $0 * factor })
            let base = Service.base(layout)
            return Array(UpdateEncoder.encode(update, as: encoding, metadata: base, seed: 9, residual: &residual))
        }
        func send(_ token: String, _ url: String, _ factor: Float) async throws {
            let answer = try await service.call("PUT", url, token: token, good(factor))
            try #require(answer.status == 200, "\(answer.json)")
        }
        try await send(first, try #require(assignment["update_url"] as? String), 1)
        if let between { try await between(service, bad.token, bad.url) }
        try await send(second.token, second.url, -0.5)
        try await service.waitForEnd(of: run)
        let weights = try await service.call("GET", "/v1/runs/\(run)/models/1/weights", token: service.admin)
        #expect(weights.status == 200)
        return weights.bytes
    }
}
