import Foundation
import Logging
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

@testable import Coordination

/// No model file is believed before it was looked at.
@Suite(.timeLimit(.minutes(10)))
struct ModelFileTests {
    private func problems(_ coordinator: Coordinator) async throws -> [String] {
        try await coordinator.overview(role: .viewer).problems.map(\.code)
    }

    @Test(arguments: [true, false])
    func aRunWhoseModelIsGoneWaitsAndGoesOnWhenItIsRestored(_ isMissing: Bool) async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(try Bench.specification(goal: 2), clients: 2)
        let sha256 = try await bench.coordinator.model(run: run, version: "0").sha256
        let path = bench.coordinator.blobs.path(sha256: sha256)
        let bytes = try Data(contentsOf: URL(fileURLWithPath: path))
        if isMissing {
            try FileManager.default.removeItem(atPath: path)
        } else {
            try bytes.dropLast().write(to: URL(fileURLWithPath: path))
        }
        let restarted = try await bench.restarted()
        try await restarted.tick()
        // Nobody is given work that could come to nothing.
        for client in clients { #expect(try await Bench.assignment(restarted, client) == nil) }
        #expect(try await problems(restarted).contains(isMissing ? "model_missing" : "model_damaged"))
        let said = try await restarted.run(run).waitingFor
        #expect(said.contains("restore blobs/") && !said.contains(bench.directory.path), "\(said)")
        bench.clock.advance(by: 1000)
        try await restarted.tick()
        #expect(try await restarted.rounds(run: run).map(\.attempt) == [1])
        try bytes.write(to: URL(fileURLWithPath: path))
        try await wait(for: "the file to be seen") {
            bench.clock.advance(by: 1)
            try await restarted.tick()
            return try await !problems(restarted).contains { $0.hasPrefix("model_") }
        }
        try await restarted.tick()
        for client in clients {
            let id = try #require(try await Bench.assignment(restarted, client)).id
            _ = try await Bench.submit(restarted, client, id, value: 1)
        }
        #expect(try await Bench.untilSettled(restarted, run).state == .completed)
        #expect(try await restarted.rounds(run: run).map(\.attempt) == [1])
    }

    /// A flipped bit leaves name and size: only the hash tells, before anything is made of the file.
    @Test func aRoundIsNotMadeOfADamagedModel() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(try Bench.specification(goal: 2), clients: 2)
        let sha256 = try await bench.coordinator.model(run: run, version: "0").sha256
        let path = bench.coordinator.blobs.path(sha256: sha256)
        let bytes = try Data(contentsOf: URL(fileURLWithPath: path))
        var damaged = bytes
        damaged[damaged.count - 1] ^= 1
        try damaged.write(to: URL(fileURLWithPath: path))
        let restarted = try await bench.restarted()
        var ids: [(client: String, id: String)] = []
        for client in clients {
            // The background may have found it by now.
            guard let work = try await Bench.assignment(restarted, client) else { continue }
            ids.append((client, work.id))
        }
        for (client, id) in ids { _ = try await Bench.submit(restarted, client, id, value: 1) }
        try await wait(for: "the damage to be found") { try await problems(restarted).contains("model_damaged") }
        #expect(try await restarted.models(run: run).count == 1)
        try bytes.write(to: URL(fileURLWithPath: path))
        try await wait(for: "the run to go on") {
            bench.clock.advance(by: 1)
            try await restarted.tick()
            for client in clients {
                guard let work = try await Bench.assignment(restarted, client) else { continue }
                _ = try await Bench.submit(restarted, client, work.id, value: 1)
            }
            return try await restarted.run(run).state == .completed
        }
        #expect(try await restarted.rounds(run: run).map(\.state) == [.committed])
    }

    /// A damaged letter in a tensor's name leaves a file that can be read: nothing is taken from it, and nothing is kept of it.
    @Test func tensorsAreThoseOfAFileThatWasHashed() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(try Bench.specification(goal: 2), clients: 2)
        let sha256 = try await bench.coordinator.model(run: run, version: "0").sha256
        let path = bench.coordinator.blobs.path(sha256: sha256)
        let bytes = try Data(contentsOf: URL(fileURLWithPath: path))
        var damaged = bytes
        let name = try #require(bytes.range(of: Data(#""w""#.utf8)))
        damaged.replaceSubrange(name, with: Data(#""v""#.utf8))
        try damaged.write(to: URL(fileURLWithPath: path))
        let restarted = try await bench.restarted()
        try await restarted.tick()
        #expect(await refusal { try await restarted.layout(of: run) }?.code == "model_damaged")
        for client in clients { #expect(try await Bench.assignment(restarted, client) == nil) }
        try bytes.write(to: URL(fileURLWithPath: path))
        var work: [AssignmentBody] = []
        try await wait(for: "the file to be seen") {
            bench.clock.advance(by: 1)
            try await restarted.tick()
            work = []
            for client in clients { if let body = try await Bench.assignment(restarted, client) { work.append(body) } }
            return work.count == 2
        }
        #expect(work.allSatisfy { $0.tensors == Bench.layout })
        #expect(try await restarted.layout(of: run) == Bench.layout)
    }

    /// A large file is hashed elsewhere: until then its tensors are not known, and the run hands out nothing.
    @Test func aLargeFileIsHashedBeforeItsTensorsAreTold() async throws {
        let directory = try TemporaryDirectory()
        let layout = ParameterLayout([.init(name: "w", shape: [3 << 20])])
        let blobs = try DirectoryBlobStore(dataDirectory: directory.path)
        let logger = Logger(label: "test")
        let stored = try ModelFiles(blobs: blobs, logger: logger).store(ParameterVector(zeros: layout))
        // Another process knows nothing of the file.
        let files = ModelFiles(blobs: try DirectoryBlobStore(dataDirectory: directory.path), logger: logger)
        files.blobs.verifier.queue.suspend()
        var sample = try SampleRun { $0.cohort += ["goal": 1, "minimum": 1] }
        sample.runs[sample.id]?.versions = [
            ModelVersionRecord(
                runId: sample.id,
                version: 0,
                sha256: stored.sha256,
                bytes: stored.byteCount,
                createdAt: SampleRun.start
            )
        ]
        let run = try sample.run
        #expect(files.checking(of: run) == nil && !files.isChecking)
        for _ in 0..<2 {
            #expect(await refusal { try files.layout(of: run.versions[0]) }?.code == "model_being_checked")
            #expect(files.checking(of: run)?.contains("being read for the first time") == true && files.isChecking)
        }
        files.blobs.verifier.queue.resume()
        try await wait(for: "the hash") { !files.isChecking }
        #expect(try files.layout(of: run.versions[0]) == layout && files.checking(of: run) == nil)
    }

    @Test func aRunOfALargeModelGoesOnAfterARestart() async throws {
        let bench = try await Bench(.memory)
        _ = try await bench.coordinator.createPopulation(PopulationRequest(name: "p", budget: nil))
        let layout = ParameterLayout([.init(name: "w", shape: [3 << 20])])
        let run = try await bench.coordinator.createRun(
            Bench.specification(goal: 2),
            initialModel: ParameterVector(zeros: layout)
        ).id
        let clients = try await bench.enroll(2)
        _ = try await bench.coordinator.startRun(run)
        let restarted = try await bench.restarted()
        var work: AssignmentBody?
        try await wait(for: "the hash") {
            try await restarted.tick()
            work = try await Bench.assignment(restarted, clients[0])
            return work != nil
        }
        #expect(work?.tensors == layout)
        #expect(try await !restarted.run(run).waitingFor.contains("for the first time"))
    }

    /// What was whole once is believed as long as it is the same file, and not until the next restart.
    @Test func aFileThatChangesAfterItWasHashedIsHashedAgain() async throws {
        let directory = try TemporaryDirectory()
        let path = directory.path + "/file"
        let bytes = Data((0..<10_000).map { UInt8(truncatingIfNeeded: $0 &* 31) })
        let sha256 = Secrets.sha256(bytes)
        var wrong = bytes
        wrong[5000] ^= 1
        func write(_ data: Data) throws {
            let file = try FileHandle(forUpdating: URL(fileURLWithPath: path))
            try file.write(contentsOf: data)
            try file.close()
        }
        let verifier = BlobVerifier()
        func code() -> String {
            do throws(CoordinationError) {
                try verifier.check(path, sha256: sha256, owner: "a file")
                return "whole"
            } catch {
                return error.code
            }
        }
        try bytes.write(to: URL(fileURLWithPath: path))
        #expect(code() == "whole")
        // In place, of the same length.
        try write(wrong)
        #expect(code() == "model_damaged" && verifier.hasDamage)
        try write(bytes)
        #expect(code() == "whole" && !verifier.hasDamage)
        // Its time is put back, as some tools do that copy.
        let modified = try FileManager.default.attributesOfItem(atPath: path)[.modificationDate] as? Date
        try write(wrong)
        try FileManager.default.setAttributes([.modificationDate: try #require(modified)], ofItemAtPath: path)
        #expect(code() == "model_damaged")
        try write(bytes)
        #expect(code() == "whole")
        // Another file in its place, and none.
        try FileManager.default.removeItem(atPath: path)
        #expect(code() == "model_missing")
        try wrong.write(to: URL(fileURLWithPath: path))
        #expect(code() == "model_damaged")
        try bytes.write(to: URL(fileURLWithPath: path))
        #expect(code() == "whole")
        await #expect(throws: Never.self) { try await verifier.verify(path, sha256: sha256, owner: "a file") }
    }

    /// After a start anybody may ask for every old version: what open runs need does not stand behind them.
    @Test func whatRunsNeedIsHashedFirst() async throws {
        let directory = try TemporaryDirectory()
        let verifier = BlobVerifier()
        verifier.queue.suspend()
        func ask(_ name: String, isNeeded: Bool) throws -> Task<Void, any Error> {
            let (path, bytes) = (directory.path + "/" + name, Data(name.utf8))
            try bytes.write(to: URL(fileURLWithPath: path))
            return Task {
                try await verifier.verify(
                    path,
                    sha256: Secrets.sha256(bytes),
                    owner: name,
                    isNeeded: isNeeded,
                    patience: .seconds(3600)
                )
            }
        }
        var tasks: [Task<Void, any Error>] = []
        for index in 0..<20 { tasks.append(try ask("old \(index)", isNeeded: false)) }
        // Sixteen wait; the others are told to come again.
        try await wait(for: "as many as may wait") { verifier.order.count == 16 }
        tasks.append(try ask("base", isNeeded: true))
        // One that waits already, and is needed now.
        tasks.append(try ask("old 3", isNeeded: true))
        try await wait(for: "the base to wait before them") {
            verifier.order.prefix(2).contains { $0.hasSuffix("/base") }
        }
        verifier.queue.resume()
        var refused = 0
        for task in tasks {
            do { try await task.value } catch let error as CoordinationError {
                #expect(error.code == "model_being_checked")
                refused += 1
            }
        }
        #expect(refused <= 4)
    }

    /// A backup gives each model's file a second name, and a commit takes the spool's name away: neither makes anybody read it again.
    @Test func aSecondNameChangesNoContents() throws {
        let directory = try TemporaryDirectory()
        let path = directory.path + "/file"
        try Data("what was written".utf8).write(to: URL(fileURLWithPath: path))
        let verifier = BlobVerifier()
        // Believed without being read: a check that hashed it would find that this is not its hash.
        let sha256 = String(repeating: "0", count: 64)
        verifier.noteWritten(path)
        for step in 0..<2 {
            if step == 0 {
                try FileManager.default.linkItem(atPath: path, toPath: path + ".second")
            } else {
                try FileManager.default.removeItem(atPath: path + ".second")
            }
            try verifier.check(path, sha256: sha256, owner: "a file")
        }
        try Data("something else".utf8).write(to: URL(fileURLWithPath: path))
        #expect(throws: CoordinationError.self) { try verifier.check(path, sha256: sha256, owner: "a file") }
    }
}
