import Coordination
import Foundation
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

/// First models as people have them: what is refused is named, with what to do.
@Suite(.timeLimit(.minutes(10)))
struct FirstModelTests {
    struct Given: Sendable, CustomTestStringConvertible {
        var name: String
        var bytes: [UInt8]
        var status = 422
        var code = "tensor_mismatch"
        var says: [String]
        var testDescription: String { name }
    }

    private static func file(_ entries: String, _ count: Int) -> [UInt8] {
        let header = "{" + entries + "}"
        return withUnsafeBytes(of: UInt64(header.utf8.count).littleEndian) { Array($0) } + Array(header.utf8)
            + [UInt8](repeating: 0, count: count)
    }

    private static func tensor(_ type: String, _ count: Int) -> [UInt8] {
        file(
            #""w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"n":{"dtype":"\#(type)","shape":[1],"data_offsets":[4,\#(4 + count)]}"#,
            4 + count
        )
    }

    private static func floats(_ values: [Float]) -> [UInt8] {
        Array(
            SafetensorsWriter.encode(
                ParameterVector(layout: ParameterLayout([.init(name: "w", shape: [values.count])]), values: values)
            )
        )
    }

    static let given: [Given] = [
        .init(name: "F12 I64", bytes: tensor("I64", 8), says: ["tensor 'n' is I64", "leave it out"]),
        .init(name: "F12 F64", bytes: tensor("F64", 8), says: ["tensor 'n' is F64", "cast it"]),
        .init(name: "F12 BF16", bytes: tensor("BF16", 2), says: ["tensor 'n' is BF16", "cast it"]),
        .init(name: "F12 F16", bytes: tensor("F16", 2), says: ["tensor 'n' is F16", "cast it"]),
        .init(name: "F12 BOOL", bytes: tensor("BOOL", 1), says: ["tensor 'n' is BOOL", "leave it out"]),
        .init(
            name: "F12 an empty tensor",
            bytes: file(#""w":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#, 0),
            says: ["tensor 'w' is empty", "leave it out"]
        ),
        .init(name: "F12 no tensor", bytes: file("", 0), says: ["at least one tensor"]),
        .init(name: "F11 NaN", bytes: floats([1, .nan]), code: "not_finite", says: ["NaN or an infinity"]),
        .init(
            name: "F11 an infinity",
            bytes: floats([1, -.infinity]),
            code: "not_finite",
            says: ["NaN or an infinity"]
        ),
        .init(name: "F22 a web page", bytes: Array("<!DOCTYPE html><html></html>".utf8), says: ["no safetensors file"]),
        .init(name: "F22 an archive", bytes: [0x50, 0x4B, 3, 4, 20, 0, 8, 8, 0, 0], says: ["no safetensors file"]),
        .init(
            name: "F22 a pointer",
            bytes: Array("version https://git-lfs.github.com/spec/v1\n".utf8),
            says: ["no safetensors file"]
        ),
        .init(
            name: "F22 no metadata",
            bytes: file(#""__metadata__":null,"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#, 4),
            status: 201,
            code: "",
            says: []
        ),
        .init(name: "F12 floats", bytes: floats([0, 1]), status: 201, code: "", says: []),
    ]

    @Test(arguments: given)
    func eachIsJudgedByName(_ given: Given) async throws {
        let service = try await Service()
        let run = try await run(service)
        let answer = try await service.call("PUT", "/v1/runs/\(run)/model", token: service.admin, given.bytes)
        let detail = answer.json["detail"] as? String ?? ""
        #expect(
            answer.status == given.status && answer.code == given.code,
            "\(answer.status) \(answer.code): \(detail)"
        )
        for words in given.says { #expect(detail.contains(words), "\(detail)") }
    }

    private func run(_ service: Service) async throws -> String {
        _ = try await service.post("/v1/populations", #"{"name": "p"}"#)
        let specification =
            RunFile.sample { $0.cohort += ["goal": 1, "minimum": 1] }.text
        return try #require(try await service.post("/v1/runs", specification).json["id"] as? String)
    }

    /// F6: PyTorch's libraries refuse files whose metadata do not say `pt`.
    @Test func publishedVersionsSayThatTheyAreForPyTorch() async throws {
        let service = try await Service()
        let run = try await run(service)
        let model = Array(SafetensorsWriter.encode(ParameterVector(zeros: Service.layout)))
        #expect(try await service.call("PUT", "/v1/runs/\(run)/model", token: service.admin, model).status == 201)
        #expect(try await service.post("/v1/runs/\(run)/start").status == 200)
        let enrollment = try #require(
            try await service.post("/v1/populations/p/enrollment-tokens", #"{"max_uses": 5}"#).json["token"] as? String
        )
        let token = try #require(try await service.post("/v1/clients", token: enrollment).json["token"] as? String)
        let work = try await service.post("/v1/checkins", token: token).json["assignment"] as? [String: Any]
        let url = try #require(work?["update_url"] as? String)
        #expect(try await service.call("PUT", url, token: token, Service.update([1, 2, 3, 4])).status == 200)
        try await service.waitForEnd(of: run)
        let path = service.coordinator.blobs.path(
            sha256: try await service.coordinator.model(run: run, version: "1").sha256
        )
        let file = try SafetensorsFile(path: path)
        #expect(file.header.metadata["format"] == "pt" && file.layout == Service.layout)
    }
}
