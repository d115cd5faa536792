import CLibrary
import Crypto
import Foundation
import MartletTransport
import StrictJSON
import Tensors
import UpdateCompression
import WireFormat

/// Models by their hash, fetched once whatever the number of virtual clients that ask at the same time, and not again by
/// the next process.
///
/// The models used last are kept: `memoryCount` of them in memory, `fileCount` as files, and few of all else that a server
/// may name, so that no server fills the device's disk. A file is hashed before it is believed, and the hash that counts
/// is the assignment's.
public actor ModelCache {
    private let directory: String
    /// Models in memory.
    private var models: [String: ParameterVector] = [:]
    private var loads: [String: Load] = [:]
    /// Names of files; the one used last at the end.
    private var order: [String]
    /// Bytes that were downloaded.
    public private(set) var bytesDown = 0
    /// Models held in memory.
    static let memoryCount = 3
    /// Models kept as files.
    static let fileCount = 4
    /// Downloads that were cut and are kept to be gone on with.
    static let partialCount = 2
    /// Documents kept as files.
    static let documentCount = 8
    /// Seconds after which nobody goes on with a download that was cut.
    private static let partialLifetime = 86_400.0

    /// Keeps files in a directory, made where it is missing; what an earlier process left there is used.
    ///
    /// - Throws: `ClientError` with code `storage` or `disk_full`.
    public init(directory: String) throws {
        self.directory = directory
        try ClientState.makeDirectory(directory)
        let isOld = Date(timeIntervalSinceNow: -Self.partialLifetime)
        for (name, age) in Self.files(of: directory) where PartialFile.isPartial(name) && age < isOld {
            PartialFile.removeUnused(directory + "/" + name)
        }
        order = Self.files(of: directory).map(\.name).filter { $0.hasSuffix(StateFileName.modelSuffix) }
    }

    /// One model on its way, and who waits for it.
    private final class Load {
        /// Whose request it goes by: a failure is that one's, with its token and its deadline.
        let leader: UUID
        var task: Task<Void, Never>?
        var waiting: [UUID: CheckedContinuation<ParameterVector?, any Error>] = [:]
        /// How it ended.
        var result: Result<ParameterVector, any Error>?

        init(leader: UUID) { self.leader = leader }
    }

    /// A model's tensors, from memory, the disk, or the server.
    ///
    /// What is asked for at the same time is fetched once. Success is shared; after a failure those who waited ask for themselves. The
    /// transfer ends with the last one who waits for it.
    ///
    /// - Parameters:
    ///   - file: The model, and how it is written on its way.
    ///   - layout: Its tensors where they are known; needed where it is not sent as F32.
    ///   - parameterLimit: Parameters, at most: a file's own types may be smaller than those of memory.
    ///   - fetch: Brings the file to a path, where its beginning may lie already.
    /// - Returns: The tensors.
    /// - Throws: `ClientError` with code `digest_mismatch`, or what `fetch` throws; `CancellationError` at once.
    func model(
        _ file: Assignment.ModelFile,
        layout: ParameterLayout?,
        parameterLimit: Int = .max,
        fetch: @escaping @Sendable (String) async throws -> Void
    ) async throws -> ParameterVector {
        let expected = Expectation(layout: layout, parameterLimit: parameterLimit)
        let name = StateFileName.model(file)
        touch(name)
        while true {
            try Task.checkCancellation()
            if let model = models[name] {
                try expected.require(model.layout)
                return model
            }
            let id = UUID()
            let load = loads[name] ?? start(name, file, expected, leader: id, fetch)
            let model = try await withTaskCancellationHandler {
                try await withCheckedThrowingContinuation { self.wait(for: load, name, id, $0) }
            } onCancel: {
                Task { await self.leave(name, id) }
            }
            if let model {
                try expected.require(model.layout)
                return model
            }
        }
    }

    /// How many wait for a model.
    var waitingCount: Int { loads.values.reduce(0) { $0 + $1.waiting.count } }

    /// Lets one wait; whatever came first, the end of the load or the waiter's cancellation, it is resumed once.
    private func wait(
        for load: Load,
        _ name: String,
        _ id: UUID,
        _ continuation: CheckedContinuation<ParameterVector?, any Error>
    ) {
        switch load.result {
        case nil:
            load.waiting[id] = continuation
            if Task.isCancelled { leave(name, id) }
        case .success(let model): continuation.resume(returning: model)
        case .failure(let error) where id == load.leader: continuation.resume(throwing: error)
        case .failure: continuation.resume(returning: nil)
        }
    }

    private func start(
        _ name: String,
        _ file: Assignment.ModelFile,
        _ expected: Expectation,
        leader: UUID,
        _ fetch: @escaping @Sendable (String) async throws -> Void
    ) -> Load {
        let load = Load(leader: leader)
        loads[name] = load
        load.task = Task {
            let result: Result<ParameterVector, any Error>
            do {
                result = .success(try await self.load(name, file, expected, fetch))
            } catch { result = .failure(error) }
            self.end(name, result)
        }
        return load
    }

    private func load(
        _ name: String,
        _ file: Assignment.ModelFile,
        _ expected: Expectation,
        _ fetch: @escaping @Sendable (String) async throws -> Void
    ) async throws -> ParameterVector {
        let path = directory + "/" + name
        if try !Self.isWhole(path, file) {
            makeRoomForPartial()
            let partial = try PartialFile(path)
            try await download(file, to: partial, fetch)
            // Over whatever was there and was not whole.
            guard rename(partial.path, path) == 0 else {
                throw LocalFailure.error("write", path, errno)
            }
        }
        do { return try Self.read(path, file, expected) } catch {
            // What is of no use makes no room for itself; a disk that fails says nothing about it.
            if LocalFailure.error(error, path) == nil { unlink(path) }
            throw error
        }
    }

    private func end(_ name: String, _ result: Result<ParameterVector, any Error>) {
        guard let load = loads.removeValue(forKey: name) else { return }
        load.result = result
        switch result {
        case .success(let model):
            models[name] = model
            tidy()
            for waiter in load.waiting.values { waiter.resume(returning: model) }
        case .failure(let error):
            load.waiting.removeValue(forKey: load.leader)?.resume(throwing: error)
            // Another one's token may be good, and its deadline later.
            for waiter in load.waiting.values { waiter.resume(returning: nil) }
        }
        load.waiting = [:]
    }

    /// Lets one who waits go; a load that nobody waits for ends.
    ///
    /// Those who come meanwhile wait for its end, and begin anew.
    private func leave(_ name: String, _ id: UUID) {
        guard let load = loads[name], let waiter = load.waiting.removeValue(forKey: id) else { return }
        if load.waiting.isEmpty { load.task?.cancel() }
        waiter.resume(throwing: CancellationError())
    }

    /// Fetches a file, going on with what an earlier attempt has left, until it is what the assignment names.
    private func download(
        _ file: Assignment.ModelFile,
        to partial: PartialFile,
        _ fetch: @Sendable (String) async throws -> Void
    ) async throws {
        while true {
            let kept = try partial.byteCount()
            try await fetch(partial.path)
            let count = try partial.byteCount()
            let actual = count == file.fileByteCount ? try FileDigest.sha256(partial.path).hexadecimal : nil
            if actual == file.fileHash.text { return note(count - min(kept, count)) }
            try partial.empty()
            // The beginning may have been another file's, or damaged: once more from the start.
            guard kept > 0 else {
                throw ClientError(
                    code: "digest_mismatch",
                    message: actual.map { "the downloaded model has SHA-256 \($0), and \(file.fileHash) was promised" }
                        ?? "the downloaded model has \(count) bytes, and \(file.fileByteCount) were promised"
                )
            }
        }
    }

    /// A small file with this hash, such as a tokeniser.
    ///
    /// - Throws: `ClientError` with code `digest_mismatch`; what `fetch` throws.
    func document(_ sha256: ContentHash, fetch: @Sendable () async throws -> Data) async throws -> Data {
        let path = directory + "/" + StateFileName.document(sha256)
        // What is damaged or a link is fetched again.
        if let known = try? PlainFile.contents(path), SHA256.hash(data: known).hexadecimal == sha256.text {
            return known
        }
        let data = try await fetch()
        let actual = SHA256.hash(data: data).hexadecimal
        guard actual == sha256.text else {
            throw ClientError(code: "digest_mismatch", message: "the downloaded document has SHA-256 \(actual)")
        }
        note(data.count)
        try StateFiles(directory: directory).write(StateFileName.document(sha256), data: data)
        let documents = Self.files(of: directory).map(\.name).filter { $0.hasSuffix(StateFileName.documentSuffix) }
        for name in documents.dropLast(Self.documentCount) { unlink(directory + "/" + name) }
        return data
    }

    // MARK: - Files

    /// The directory's files, the one that was written last at the end.
    private static func files(of directory: String) -> [(name: String, age: Date)] {
        let manager = FileManager.default
        return ((try? manager.contentsOfDirectory(atPath: directory)) ?? [])
            .map { name in
                let attributes = try? manager.attributesOfItem(atPath: directory + "/" + name)
                return (name, attributes?[.modificationDate] as? Date ?? .distantPast)
            }
            .sorted { ($0.1, $0.0) < ($1.1, $1.0) }
    }

    /// Whether a file is there and is what it was when it arrived.
    private static func isWhole(_ path: String, _ file: Assignment.ModelFile) throws -> Bool {
        let known: Data
        do { known = try FileDigest.sha256(path) } catch let error as ClientError {
            // What is not there, or is a link, is fetched; the file that comes takes its place.
            guard PlainFile.isMissing(path) else { throw error }
            return false
        }
        return known.hexadecimal == file.fileHash.text
    }

    private static func read(
        _ path: String,
        _ file: Assignment.ModelFile,
        _ expected: Expectation
    ) throws -> ParameterVector {
        guard file.encoding != .f32, let layout = expected.layout else {
            let opened = try SafetensorsFile(path: path, followsLinks: false)
            // A file of bytes takes four times as much in memory: its header is asked before it is read.
            try expected.require(opened.layout)
            return try opened.readAll()
        }
        try expected.require(layout)
        do {
            let opened = try UpdateFile(path: path, layout: layout, followsLinks: false)
            // Other encodings may need much less room on the disk than in memory.
            guard opened.encoding.rawValue == file.encoding.rawValue else {
                throw ClientError(
                    mismatch:
                        "the model is written as \(opened.encoding.rawValue), and \(file.encoding.rawValue) was promised"
                )
            }
            var model = ParameterVector(zeros: layout)
            try opened.read(0..<layout.parameterCount, into: &model.values)
            return model
        } catch let error as UpdateFormatError {
            throw ClientError(
                mismatch: "the model cannot be read: \(PrintableText.escaped(error.description, limit: 300))"
            )
        }
    }

    /// What a model must be, so that it is read at all.
    private struct Expectation {
        var layout: ParameterLayout?
        var parameterLimit: Int

        func require(_ actual: ParameterLayout) throws {
            guard actual.parameterCount <= parameterLimit else {
                throw ClientError(
                    invalid: "a model of \(actual.parameterCount) parameters is over this device's limit"
                )
            }
            guard layout == nil || layout == actual else {
                throw ClientError(mismatch: "the model's tensors are not those of the assignment")
            }
        }
    }

    // MARK: - What is kept

    private func note(_ count: Int) { bytesDown += count }

    private func touch(_ name: String) {
        order.removeAll { $0 == name }
        order.append(name)
    }

    /// A server that names another file each time, and sends a part of it, gets no more room than this.
    private func makeRoomForPartial() {
        let partials = Self.files(of: directory).map(\.name).filter(PartialFile.isPartial)
        for name in partials.dropLast(Self.partialCount - 1) { PartialFile.removeUnused(directory + "/" + name) }
    }

    private func tidy() {
        for name in order.dropLast(Self.memoryCount) { models[name] = nil }
        while order.count > Self.fileCount {
            let path = directory + "/" + order.removeFirst()
            unlink(path)
            // Beside variants, earlier versions kept their hash.
            unlink(path + ".sha256")
        }
    }
}
