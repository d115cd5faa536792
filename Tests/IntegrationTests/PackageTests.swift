import Foundation
import TestSupport
import Testing

struct PackageTests {
    private func output(_ arguments: [String]) throws -> Data {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = arguments
        let pipe = Pipe()
        process.standardOutput = pipe
        process.standardError = FileHandle.nullDevice
        try process.run()
        let data = pipe.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return data
    }

    /// The targets and packages that a target brings.
    private func everything(neededBy target: String) throws -> Set<String> {
        // A scratch path of its own: the one in use is locked by the command that runs this test.
        let scratch = try TemporaryDirectory()
        let json = try output([
            "swift", "package", "--package-path", ServerProcess.repository,
            "--scratch-path", scratch.path, "dump-package",
        ])
        let object = try #require(try JSONSerialization.jsonObject(with: json) as? [String: Any])
        let targets = try #require(object["targets"] as? [[String: Any]])
        var needs: [String: [String]] = [:]
        for target in targets {
            let dependencies = target["dependencies"] as? [[String: [Any]]] ?? []
            needs[target["name"] as? String ?? ""] = dependencies.compactMap { $0.values.first?.first as? String }
        }
        var closure: Set<String> = []
        var pending = [target]
        while let name = pending.popLast() {
            if closure.insert(name).inserted { pending += needs[name] ?? [] }
        }
        return closure
    }

    private static let server: Set = [
        "GRDB", "SQLiteStorage", "HTTPServing", "Coordination", "CoordinatorAPI", "Yams",
    ]

    @Test(.slow) func theClientLibraryLinksNeitherSQLiteNorTheServer() throws {
        let closure = try everything(neededBy: "MartletClient")
        #expect(closure.contains("LocalTraining") && closure.contains("CCurl"))
        #expect(closure.isDisjoint(with: Self.server), "\(closure)")
    }

    @Test func theOperatorsLibraryLinksNoTrainerEither() throws {
        let closure = try everything(neededBy: "MartletOperator")
        #expect(closure.contains("WireFormat") && closure.contains("CCurl"))
        let device: Set = ["LocalTraining", "TrainerInterface", "DifferentialPrivacy", "MartletClient"]
        #expect(closure.isDisjoint(with: Self.server.union(device)), "\(closure)")
    }

    /// What prints a server's answers knows them by their types, not by the coordinator that made them.
    @Test(arguments: ["Operating", "Demo", "Plotting", "Terminal"])
    func commandsThatAskAServerImportNoCoordinator(_ folder: String) throws {
        let path = ServerProcess.repository + "/Sources/martlet/" + folder
        let files = try FileManager.default.contentsOfDirectory(atPath: path).filter { $0.hasSuffix(".swift") }
        #expect(!files.isEmpty)
        for file in files {
            let lines = try String(contentsOfFile: path + "/" + file, encoding: .utf8).split(separator: "\n")
            #expect(!lines.contains("import Coordination"), "\(file)")
        }
    }

    @Test(.slow, .enabled(if: ServerProcess.python != nil, "scripts/test sets MARTLET_TEST_PYTHON"))
    func theDescriptionIsValidOpenAPI() throws {
        let code = """
            import sys, yaml
            from openapi_spec_validator import validate
            validate(yaml.safe_load(open(sys.argv[1])))
            print("valid")
            """
        let python = try #require(ServerProcess.python)
        let answer = try output([python, "-c", code, ServerProcess.repository + "/openapi.yaml"])
        #expect(String(decoding: answer, as: UTF8.self) == "valid\n")
    }
}
