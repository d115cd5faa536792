import Foundation
import MartletTransport
import StrictJSON
import Tensors
import TrainerInterface
import WireFormat

extension FederatedClient {
    func model(of assignment: Assignment) async throws -> ParameterVector {
        try await weights(assignment.model, of: assignment, layout: assignment.tensors)
    }

    /// A model's tensors, from the cache or the server.
    func weights(
        _ file: Assignment.ModelFile,
        of assignment: Assignment,
        layout: ParameterLayout? = nil
    ) async throws -> ParameterVector {
        let (transport, retry) = (transport, retry)
        var download = ResumableDownload(url: try url(file.path), headers: authorization(), path: "")
        download.byteCount = file.fileByteCount
        download.sha256 = file.fileHash.text
        download.end = .now + assignment.deadline.duration
        download.onProgress = followTransfer
        let request = download
        return try await models.model(file, layout: layout, parameterLimit: limits.modelBytes / 4) { path in
            var download = request
            download.path = path
            try await download.send(over: transport, retry: retry)
        }
    }

    /// What the trainer is told, with the base model and the tokeniser fetched where the model needs them.
    func instructions(for assignment: Assignment) async throws -> TrainingInstructions {
        var architecture = assignment.architecture
        if let file = assignment.tokenizer {
            var request = TransportRequest(method: "GET", url: try url(file.path), headers: authorization())
            request.byteLimit = limits.documentBytes
            request.longestSeconds = assignment.deadline.seconds
            request.fileSHA256 = file.sha256.text
            let (whole, transport, retry) = (request, transport, retry)
            let document = try await models.document(file.sha256) {
                try await retry.send(whole, over: transport) { response in
                    try response.unreadDocument(from: whole.url, sha256: file.sha256)
                }
            }
            do {
                architecture = try architecture.embedding(tokenizer: document)
            } catch let error as DocumentError {
                throw ClientError(invalid: "tokenizer", error)
            }
        }
        var base: ParameterVector?
        if let file = assignment.base { base = try await weights(file, of: assignment) }
        var instructions = try TrainingInstructions(assignment, architecture: architecture, base: base)
        instructions.memoryLimit = limits.trainingBytes
        let source = source
        instructions.onProgress = { share in
            if share.isFinite { source.send(.progress(max(0, min(1, share)))) }
        }
        return instructions
    }

    /// SCAFFOLD's two control variates; `nil` where the run uses none.
    func controls(
        for assignment: Assignment,
        layout: ParameterLayout
    ) async throws -> ControlVariateStep? {
        guard assignment.training.usesControlVariates else { return nil }
        var server = ParameterVector(zeros: layout)
        if let file = assignment.control { server = try await weights(file, of: assignment, layout: layout) }
        let file = ControlVariateFile(run: assignment.run, files: state.files)
        if try await file.settle({ try await self.hasCommitted($0) }) {
            notify(
                .init(
                    kind: .state,
                    message:
                        "the note on the control variate of run \(assignment.run.text) was damaged and is removed: this "
                        + "device goes on with the control variate of before its last update"
                )
            )
        }
        let own = try file.value(layout: layout)
        guard server.layout == layout, own.layout == layout else {
            throw ClientError(code: "model_mismatch", message: "the control variate's tensors are not the model's")
        }
        return ControlVariateStep(server: server.values, own: own.values)
    }

    /// Whether the round of an accepted update became a model version; `nil` while it is open.
    func hasCommitted(_ assignment: String) async throws -> Bool? {
        // What this device has noted itself; a note that is damaged speaks of no update.
        guard let id = AssignmentID(assignment) else { return false }
        var request = TransportRequest(
            method: "GET",
            url: try url(Endpoints.assignment(AssignmentReference(id))),
            headers: authorization()
        )
        request.byteLimit = ServerAnswer.byteLimit
        let (whole, limit) = (request, limits.modelBytes)
        do {
            return try await retry.send(whole, over: transport) { response in
                try response.document(from: whole.url) {
                    let known = try? ServerAnswer.read(response, of: "assignment") { document throws(DocumentError) in
                        try Assignment.read(document, modelByteLimit: limit)
                    }
                    // Anything else says nothing of the round.
                    guard let known, known.id == id else { throw ClientError.foreign(response, url: whole.url) }
                    return known.roundCommitted
                }
            }
        } catch let error as ClientError where error.is(.notFound) && error.status == 404 {
            // A server that was restored from a backup knows nothing of it, nor does its control variate.
            return false
        }
    }
}
