import Foundation
import HTTPTypes
import TestBenches
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(10)))
struct ArchiveTests {
    @Test func anArchiveUnpacksToTheModelAndItsCard() async throws {
        let service = try await Service()
        let (run, token, _) = try await service.assigned()
        let archive = try await service.call("GET", "/v1/runs/\(run)/models/0/archive", token: token)
        #expect(archive.status == 200)
        #expect(archive.headers[.contentType] == "application/x-tar")
        let directory = try TemporaryDirectory()
        let path = directory.path + "/model.tar"
        try Data(archive.bytes).write(to: URL(fileURLWithPath: path))
        let tar = Process()
        tar.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        tar.arguments = ["tar", "-xf", path, "-C", directory.path]
        try tar.run()
        tar.waitUntilExit()
        #expect(tar.terminationStatus == 0)
        let root = directory.path + "/\(run)-v0/"
        let names = try FileManager.default.contentsOfDirectory(atPath: root).sorted()
        #expect(names == ["card.md", "model.safetensors", "run.json"])
        let weights = try await service.call("GET", "/v1/runs/\(run)/models/0/weights", token: token)
        #expect(FileManager.default.contents(atPath: root + "model.safetensors") == Data(weights.bytes))
        let card = try String(contentsOfFile: root + "card.md", encoding: .utf8)
        #expect(card.contains("The initial model") && card.contains("No differential privacy"), "\(card)")
        let specification = try JSONSerialization.jsonObject(
            with: Data(contentsOf: URL(fileURLWithPath: root + "run.json"))
        )
        #expect((specification as? [String: Any])?["rounds"] as? Int == 1)
    }

    @Test func anArchiveIsForReadersOfTheModel() async throws {
        let service = try await Service()
        let (run, _, _) = try await service.assigned()
        #expect(try await service.call("GET", "/v1/runs/\(run)/models/0/archive", token: "nobody").status == 401)
        #expect(try await service.call("GET", "/v1/runs/\(run)/models/9/archive", token: service.admin).status == 404)
    }
}
