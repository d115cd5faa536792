import Coordination
import Crypto
import Foundation
import HTTPServing
import HTTPTypes
import Tensors
import TestBenches
import TestSupport
import Testing
import UpdateCompression

@testable import CoordinatorAPI

@Suite(.timeLimit(.minutes(10)))
struct DownloadTests {
    /// 300 values in two tensors, the second with a block of zeros, and one value too large for a half.
    private static let layout = ParameterLayout([.init(name: "a", shape: [3, 50]), .init(name: "b", shape: [150])])
    private static let model: ParameterVector = {
        var generator = Xoshiro256StarStar(seed: 9)
        var values = (0..<300).map { _ in Float.random(in: -2...2, using: &generator) }
        for index in 150..<278 { values[index] = 0 }
        values[299] = 70_000
        return ParameterVector(layout: layout, values: values)
    }()

    private func served() async throws -> (service: Service, url: String) {
        let service = try await Service()
        _ = try await service.post("/v1/populations", #"{"name": "p"}"#)
        let specification =
            RunFile.sample { $0.cohort += ["goal": 2, "minimum": 1] }.text
        let run = try #require(try await service.post("/v1/runs", specification).json["id"] as? String)
        let bytes = Array(SafetensorsWriter.encode(Self.model))
        #expect(try await service.call("PUT", "/v1/runs/\(run)/model", token: service.admin, bytes).status == 201)
        return (service, "/v1/runs/\(run)/models/0/weights")
    }

    private func decoded(_ bytes: [UInt8], in directory: TemporaryDirectory) throws -> [Float] {
        let path = directory.path + "/fetched"
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        var values = [Float](repeating: 0, count: 300)
        try UpdateFile(path: path, layout: Self.layout).read(0..<300, into: &values)
        return values
    }

    @Test func variantsAreTheModelRoundedToNearest() async throws {
        let (service, url) = try await served()
        let half = try await service.call("GET", url + "?encoding=f16", token: service.admin)
        let values = try decoded(half.bytes, in: service.directory)
        for index in 0..<299 {
            // Half a unit in the last of eleven binary places.
            #expect(abs(values[index] - Self.model.values[index]) <= abs(Self.model.values[index]) * 0x1p-11 + 0x1p-25)
        }
        #expect(values[299] == 65_504)
        #expect(half.bytes.count < 300 * 2 + 400)
        let eighth = try await service.call("GET", url + "?encoding=int8", token: service.admin)
        let integers = try decoded(eighth.bytes, in: service.directory)
        for (tensor, range) in [(0, 0..<150), (1, 150..<300)] {
            for start in stride(from: range.lowerBound, to: range.upperBound, by: 128) {
                let block = start..<min(range.upperBound, start + 128)
                let largest = block.map { abs(Self.model.values[$0]) }.max() ?? 0
                for index in block {
                    #expect(
                        abs(integers[index] - Self.model.values[index]) <= largest / 254 * 1.0001,
                        "\(tensor) \(index)"
                    )
                }
            }
        }
        let plain = try await service.call("GET", url + "?encoding=f32", token: service.admin)
        #expect(plain.bytes == Array(SafetensorsWriter.encode(Self.model)))
        let unknown = try await service.call("GET", url + "?encoding=int4", token: service.admin)
        #expect(unknown.status == 400)
    }

    /// The digest in the answer's head is a promise about its bytes.
    @Test(arguments: ["", "?encoding=f16"], ["missing", "damaged"])
    func aModelThatIsNotWhatWasWrittenIsNotServed(_ query: String, _ fault: String) async throws {
        let (first, url) = try await served()
        let answer = try await first.call("GET", url, token: first.admin)
        let tag = try #require(answer.headers[.eTag])
        let path = first.coordinator.blobs.path(sha256: String(tag.dropFirst().dropLast()))
        var bytes = answer.bytes
        // Known to the process that has written it; the next one looks, before anybody asks.
        if fault == "missing" {
            try FileManager.default.removeItem(atPath: path)
        } else {
            bytes[bytes.count - 1] ^= 1
            try Data(bytes).write(to: URL(fileURLWithPath: path))
        }
        let service = try await first.restarted()
        let refused = try await service.call("GET", url + query, token: service.admin)
        #expect(refused.status == 503 && refused.code == "model_" + fault, "\(refused.status) \(refused.code)")
        #expect(refused.headers[.retryAfter] != nil)
        #expect(!String(decoding: refused.bytes, as: UTF8.self).contains(service.directory.path))
        let overview = try await service.call("GET", "/v1/overview", token: service.admin)
        #expect(String(decoding: overview.bytes, as: UTF8.self).contains("model_" + fault))
        try Data(answer.bytes).write(to: URL(fileURLWithPath: path))
        let restored = try await service.call("GET", url, token: service.admin)
        #expect(restored.status == 200 && restored.bytes == answer.bytes)
    }

    /// A variant of an earlier process is a cache: what is wrong with it is made again.
    @Test func aDamagedVariantIsMadeAgain() async throws {
        let (first, url) = try await served()
        let answer = try await first.call("GET", url + "?encoding=f16", token: first.admin)
        let directory = first.directory.path + "/variants"
        let name = try #require(try FileManager.default.contentsOfDirectory(atPath: directory).first)
        var bytes = answer.bytes
        bytes[bytes.count - 1] ^= 1
        try Data(bytes).write(to: URL(fileURLWithPath: directory + "/" + name))
        let service = try await first.restarted()
        let again = try await service.call("GET", url + "?encoding=f16", token: service.admin)
        #expect(again.status == 200 && again.bytes == answer.bytes)
    }

    /// One caller that goes through old versions takes no place of what devices need, and few others.
    @Test func whatNobodyNeedsTakesNoPlaceOfWhatDevicesDo() async throws {
        let directory = try TemporaryDirectory()
        let variants = ModelVariants(dataDirectory: directory.path)
        func model(_ value: Float) throws -> (path: String, sha256: String) {
            let vector = ParameterVector(layout: Self.layout, values: Self.model.values.map { min(1, $0) * value })
            let bytes = SafetensorsWriter.encode(vector)
            let path = directory.path + "/\(value)"
            try bytes.write(to: URL(fileURLWithPath: path))
            return (path, SHA256.hash(data: bytes).map { String(format: "%02x", $0) }.joined())
        }
        let base = try model(1000)
        let needed = try await variants.file(of: base.sha256, at: base.path, as: .f16)
        var stamps: [Date?] = []
        for index in 0..<40 {
            let old = try model(Float(index + 1))
            _ = try await variants.file(of: old.sha256, at: old.path, as: .f16, isNeeded: false)
            stamps.append(
                try FileManager.default.attributesOfItem(atPath: needed.path)[.modificationDate] as? Date
            )
        }
        #expect(Set(stamps).count == 1)
        let names = try FileManager.default.contentsOfDirectory(atPath: directory.path + "/variants")
        #expect(names.count == 1 + ModelVariants.otherLimit)
        // At the same time few are made, and the others told to come again.
        let later = try (100..<120).map { try model(Float($0)) }
        let refused = await withTaskGroup(of: Bool.self) { group in
            for old in later {
                group.addTask {
                    do {
                        _ = try await variants.file(of: old.sha256, at: old.path, as: .int8, isNeeded: false)
                        return false
                    } catch { return (error as? CoordinationError)?.code == "model_being_checked" }
                }
            }
            return await group.reduce(into: 0) { $0 += $1 ? 1 : 0 }
        }
        #expect(refused <= 20 - ModelVariants.waitingLimit)
        #expect(FileManager.default.fileExists(atPath: needed.path))
    }

    @Test(arguments: ["f16", "int8"])
    func aVariantIsMadeOnceAndHasItsOwnTagAndRanges(_ encoding: String) async throws {
        let (service, url) = try await served()
        let directory = service.directory.path + "/variants"
        let answers = try await withThrowingTaskGroup(of: Service.Answer.self) { group in
            for _ in 0..<8 {
                group.addTask {
                    try await service.call("GET", url + "?encoding=" + encoding, token: service.admin)
                }
            }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        let first = try #require(answers.first)
        #expect(answers.allSatisfy { $0.bytes == first.bytes && $0.status == 200 })
        let names = try FileManager.default.contentsOfDirectory(atPath: directory)
        #expect(names.count == 1)
        let digest = SHA256.hash(data: first.bytes)
        let field = try #require(HTTPField.Name("Content-Digest"))
        #expect(first.headers[field] == "sha-256=:\(Data(digest).base64EncodedString()):")
        let tag = try #require(first.headers[.eTag])
        let plain = try await service.call("GET", url, token: service.admin)
        #expect(plain.headers[.eTag] != tag)
        let target = url + "?encoding=" + encoding
        let again = try await service.call("GET", target, token: service.admin, [], ["If-None-Match": tag])
        #expect(again.status == 304)
        let part = try await service.call("GET", target, token: service.admin, [], ["Range": "bytes=10-19"])
        #expect(part.status == 206 && part.bytes == Array(first.bytes[10..<20]))
        // Another process finds the file; a damaged name and what a stop left behind go.
        let made =
            try FileManager.default.attributesOfItem(atPath: directory + "/" + names[0])[.systemFileNumber] as? Int
        try Data([1]).write(to: URL(fileURLWithPath: directory + "/part_1"))
        let restarted = try await service.restarted()
        #expect(try await restarted.call("GET", target, token: service.admin).bytes == first.bytes)
        #expect(try FileManager.default.contentsOfDirectory(atPath: directory) == names)
        let kept =
            try FileManager.default.attributesOfItem(atPath: directory + "/" + names[0])[.systemFileNumber] as? Int
        #expect(made == kept)
        // Whoever clears the directory costs the time of making it again, and nothing else.
        try FileManager.default.removeItem(atPath: directory + "/" + names[0])
        #expect(try await restarted.call("GET", target, token: service.admin).bytes == first.bytes)
        let latest = url.replacing("/models/0/", with: "/models/latest/") + "?encoding=" + encoding
        let redirect = try await service.call("GET", latest, token: service.admin)
        #expect(redirect.status == 307 && redirect.headers[.location] == target)
    }

    @Test func theRunNamesHowClientsFetchTheModel() async throws {
        let service = try await Service()
        _ = try await service.post("/v1/populations", #"{"name": "p"}"#)
        let refused = try await service.post(
            "/v1/runs",
            RunFile.sample {
                $0.cohort.goal = 2
                $0.training += ["model_encoding": "f16", "submit": "weights"]
            }.text
        )
        #expect(refused.status == 422 && refused.json.description.contains("/training/model_encoding"))
        let (_, token, assignment) = try await service.assigned(modelEncoding: "int8")
        let model = try #require(assignment["model"] as? [String: Any])
        #expect(model["encoding"] as? String == "int8")
        let url = try #require(model["url"] as? String)
        #expect(url.hasSuffix("/weights?encoding=int8"))
        #expect(try await service.call("GET", url, token: token).status == 200)
        let (_, _, plain) = try await Service().assigned()
        #expect((plain["model"] as? [String: Any])?["encoding"] == nil)
    }
}
