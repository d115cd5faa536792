import Foundation
import MartletTransport
import StrictJSON
import Tensors
import TrainerInterface
import UpdateCompression
import WireFormat

extension AssignmentWork {
    /// Fetches what the trainer needs, and makes room for what it leaves.
    func fetch() async throws -> Fetched {
        let model = try await weights(assignment.model, layout: assignment.tensors)
        let instructions = try await instructions()
        let controls = try await controls(layout: model.layout)
        try makeRoom()
        return Fetched(model: model, instructions: instructions, controls: controls)
    }

    /// A model's tensors, from the cache or the server.
    private func weights(_ file: Assignment.ModelFile, layout: ParameterLayout? = nil) async throws -> ParameterVector {
        let session = device.session
        let whole = try session.download(of: file, within: assignment.deadline)
        // A load that others wait for goes on without this client: it must not hold the client's directory.
        let (transport, retry, limit) = (session.transport, session.retry, session.limits.modelBytes / 4)
        return try await device.models.model(file, layout: layout, parameterLimit: limit) { path in
            var download = whole
            download.path = path
            try await download.send(over: transport, retry: retry)
        }
    }

    /// What the trainer is told, with the base model and the tokeniser fetched where the model needs them.
    private func instructions() async throws -> TrainingInstructions {
        var architecture = assignment.architecture
        if let file = assignment.tokenizer {
            let (session, time) = (device.session, assignment.deadline)
            let document = try await device.models.document(file.sha256) {
                try await session.document(at: file.path, sha256: file.sha256, within: time)
            }
            do {
                architecture = try architecture.embedding(tokenizer: document)
            } catch let error as DocumentError {
                throw ClientError(invalid: "tokenizer", error)
            }
        }
        var base: ParameterVector?
        if let file = assignment.base { base = try await weights(file) }
        var instructions = try TrainingInstructions(assignment, architecture: architecture, base: base)
        instructions.memoryLimit = device.session.limits.trainingBytes
        let voice = device.voice
        instructions.onProgress = { share in
            if share.isFinite { voice.tell(.progress(max(0, min(1, share)))) }
        }
        return instructions
    }

    /// SCAFFOLD's two control variates; `nil` where the run uses none.
    private func controls(layout: ParameterLayout) async throws -> ControlVariateStep? {
        guard assignment.training.usesControlVariates else { return nil }
        var server = ParameterVector(zeros: layout)
        if let file = assignment.control { server = try await weights(file, layout: layout) }
        let file = ControlVariateFile(run: assignment.run, files: files)
        let session = device.session
        let wasDamaged = try await file.settle { noted in
            // What this device has noted itself; a note that is damaged speaks of no update.
            guard let id = AssignmentID(noted) else { return false }
            return try await session.hasCommitted(id)
        }
        if wasDamaged {
            device.voice.notify(
                ofState:
                    "the note on the control variate of run \(assignment.run.text) was damaged and is removed: this "
                    + "device goes on with the control variate of before its last update"
            )
        }
        let own = try file.value(layout: layout)
        guard server.layout == layout, own.layout == layout else {
            throw ClientError(mismatch: "the control variate's tensors are not the model's")
        }
        return ControlVariateStep(server: server.values, own: own.values)
    }

    /// Sees to it that what is kept between rounds stays within the owner's limit, before anything is trained.
    private func makeRoom() throws {
        let vector = 4 * assignment.tensors.parameterCount
        // A control variate is there twice while its round is open.
        let byteCount =
            (assignment.training.usesControlVariates ? 2 * vector : 0)
            + (assignment.training.encoding == .topk ? vector : 0)
        guard assignment.kind == .train, byteCount > 0 else { return }
        let kept = RunFiles(files: files, limits: device.session.limits)
        let removed = try kept.makeRoom(for: assignment.run, byteCount: byteCount)
        guard !removed.isEmpty else { return }
        device.voice.notify(
            ofState: "to make room for run \(assignment.run.text), what was kept between rounds is removed of: "
                + removed.map(\.text).joined(separator: ", ")
        )
    }
}
