import Coordination
import Foundation
import HTTPServing
import HTTPTypes
import SecureAggregation
import StrictJSON
import Tensors
import WireFormat

/// How updates come in: whole by `PUT`, or by `PATCH` in as many parts as the network makes of them.
extension CoordinatorAPI {
    /// Updates on their way in.
    func addUploadRoutes(to routes: inout EndpointRoutes) {
        routes.addKnowingCaller(Endpoints.putUpdate) { request, client, assignment in
            try await whileUploading(assignment, client: client) {
                try await putUpdate(request, assignment, client: client)
            }
        }
        routes.addKnowingCaller(Endpoints.updateState) { request, client, assignment in
            try await uploadState(request, assignment, client: client)
        }
        routes.addKnowingCaller(Endpoints.appendToUpdate) { request, client, assignment in
            try await whileUploading(assignment, client: client) {
                try await appendToUpdate(request, assignment, client: client)
            }
        }
    }

    /// Keeps the assignment's lease while a request brings bytes; when it ends, however it does, a new lease begins.
    ///
    /// The connection itself is held to the least rate, so a client that vanishes in the middle costs its place no longer than
    /// one that vanishes elsewhere.
    private func whileUploading(
        _ assignment: AssignmentReference,
        client: String,
        _ body: () async throws -> ServerResponse
    ) async throws -> ServerResponse {
        let id = assignment.text
        let isOpen = await coordinator.beginUploadRequest(assignment: id, client: client)
        do {
            let response = try await body()
            if isOpen { await coordinator.endUploadRequest(assignment: id) }
            return response
        } catch {
            if isOpen { await coordinator.endUploadRequest(assignment: id) }
            throw error
        }
    }

    // MARK: - In one request

    /// Spool and hash, check, sync, then one transaction; refused uploads leave no trace but the count of refusals.
    private func putUpdate(
        _ request: ServerRequest,
        _ assignment: AssignmentReference,
        client: String
    ) async throws -> ServerResponse {
        let digest = try ContentDigest.contentDigest(of: request)
        let terms = try await step(request) {
            try $0.beginUpdate(assignment: assignment.text, client: client, digest: digest)
        }
        let sender = Sender(request: request, client: client)
        if terms.isEvaluation { return try await putEvaluation(sender, terms: terms) }
        if !terms.isMasked || request.headers[.contentType] != MaskedUpdateFile.mediaType {
            try Self.requireBulkType(request)
        }
        if let length = request.body.contentLength { try await requirePlannedLength(length, terms, of: sender) }
        // Before it takes room from others.
        guard (request.body.contentLength ?? 0) <= terms.byteLimit else { throw BodySpool.tooLarge(terms.byteLimit) }
        let lease = try uploads.take(
            request.body.contentLength ?? terms.byteLimit,
            for: terms.assignmentID,
            run: terms.runID,
            until: terms.deadline,
            permit: terms.permit
        )
        defer { lease.release() }
        guard terms.accepted == nil else {
            // Nothing of it is kept, which may be of a round that is over.
            let (digest, count) = try await BodySpool.hash(request, byteLimit: terms.byteLimit, lease: lease)
            return try await repeated(terms, digest.hexadecimal, count, of: sender)
        }
        try terms.permit.begin(terms.spoolPath)
        defer {
            coordinator.blobs.removeAtOnce([terms.spoolPath])
            terms.permit.end(terms.spoolPath)
        }
        let file = try await BodySpool.receive(
            request,
            path: terms.spoolPath,
            byteLimit: terms.byteLimit,
            lease: lease
        )
        return try await judge(file, terms, of: sender)
    }

    /// Who sends an update, and by which request.
    private struct Sender: Sendable {
        var request: ServerRequest
        var client: String
    }

    /// Ends an assignment whose update is refused for its contents; the refusal of the update is what the sender is told.
    private func reject(_ terms: UploadTerms, code: String, of sender: Sender) async {
        try? await step(sender.request) {
            try $0.rejectUpdate(assignment: terms.assignmentID, client: sender.client, code: code)
        }
    }

    /// Counts an update that was checked.
    private func finish(
        _ update: ReceivedUpdate,
        _ terms: UploadTerms,
        of sender: Sender
    ) async throws -> ServerResponse {
        try Self.json(
            await step(sender.request) {
                try $0.finishUpdate(assignment: terms.assignmentID, client: sender.client, update)
            }
        )
    }

    /// Refuses what has not the length that everybody's update has in a private run: a length that depends on data tells of
    /// them.
    ///
    /// Nothing is looked at before but the length, so that the answer tells no more than the length did.
    private func requirePlannedLength(_ byteCount: Int, _ terms: UploadTerms, of sender: Sender) async throws {
        guard terms.accepted == nil, let planned = terms.plannedByteCount, byteCount != planned else { return }
        await reject(terms, code: "length_mismatch", of: sender)
        throw CoordinationError(
            .unprocessable,
            "length_mismatch",
            terms.masked != nil
                ? "a masked update of this run has \(planned) bytes (update_bytes of the assignment), and not \(byteCount)"
                : "what a client sends in this private run has \(planned) bytes (update_bytes of the assignment) whatever is in "
                    + "it, and not \(byteCount): pad with spaces the header of a safetensors file, or the end of a JSON document"
        )
    }

    /// Checks a complete update and counts it.
    private func judge(_ file: SpoolFile, _ terms: UploadTerms, of sender: Sender) async throws -> ServerResponse {
        let sha256 = try file.digest().hexadecimal
        try await requirePlannedLength(file.byteCount, terms, of: sender)
        let admitted: UpdateAdmission.Admitted
        do {
            // The disk works while the values are looked at.
            admitted = try await DiskQueue.run { try UpdateAdmission.check(terms.spoolPath, terms) }
        } catch {
            // The coordinator removes the file of an update that is not wanted any more.
            try terms.permit.require()
            // A disk that fails says nothing about the update.
            if let failure = StorageFailure(error) { throw failure.error }
            let code = (error as? CoordinationError)?.code ?? "tensor_mismatch"
            await reject(terms, code: code, of: sender)
            throw error
        }
        try await SyncQueue.shared.sync(file)
        return try await finish(
            ReceivedUpdate(
                path: terms.spoolPath,
                sha256: sha256,
                byteCount: file.byteCount,
                exampleCount: admitted.exampleCount,
                metrics: admitted.metrics,
                squaredNorm: admitted.squaredNorm,
                pseudonym: admitted.pseudonym
            ),
            terms,
            of: sender
        )
    }

    /// Answers an update for an assignment that has one already: its bytes are compared where anything is left to compare.
    private func repeated(
        _ terms: UploadTerms,
        _ sha256: String,
        _ byteCount: Int,
        of sender: Sender
    ) async throws -> ServerResponse {
        try await finish(
            ReceivedUpdate(path: terms.spoolPath, sha256: sha256, byteCount: byteCount, exampleCount: 1),
            terms,
            of: sender
        )
    }

    /// Makes the sums of a private evaluation a durable file: they wait for the noise outside the database.
    private func keep(_ bytes: [UInt8], of result: EvaluationResult, _ terms: UploadTerms) async throws {
        var sums = MetricSums()
        sums.add(result.metrics, exampleCount: result.numExamples)
        let missing = terms.releasedMetrics.filter { sums.rates[$0] == nil }
        guard missing.isEmpty else {
            throw CoordinationError(
                .unprocessable,
                "metrics_missing",
                "the evaluation publishes \(terms.releasedMetrics.joined(separator: ", ")), and the sums for "
                    + "\(missing.joined(separator: ", ")) are missing: loss needs nll and loss_tokens or tokens, top1 hit1 and "
                    + "tokens, top3 hit3 and tokens"
            )
        }
        let path = terms.spoolPath
        try await DiskQueue.run { try DurableFiles.write(Data(bytes), to: path) }
    }

    /// Takes the sums that a client measured; counted once like any update, and the same bytes get the same answer.
    private func putEvaluation(_ sender: Sender, terms: UploadTerms) async throws -> ServerResponse {
        let request = sender.request
        let type = (request.headers[.contentType] ?? "").prefix { $0 != ";" }
        guard type == "application/json" else {
            throw ParseFailure(status: 415, detail: "this is an evaluation: send its sums as application/json")
        }
        // Sums are as small as whatever else clients say; they are held in memory, and no room for updates is asked for them.
        let limit = min(request.documentByteLimit, max(Self.clientDocumentBytes, terms.plannedByteCount ?? 0))
        let bytes = try await request.body.collect(limit: limit)
        if terms.accepted != nil {
            return try await repeated(terms, Secrets.sha256(bytes), bytes.count, of: sender)
        }
        try await requirePlannedLength(bytes.count, terms, of: sender)
        var result = try EvaluationResult.read(JSONValue.parse(bytes), isPrivate: !terms.releasedMetrics.isEmpty)
        if terms.judgesMetrics {
            if let fault = MetricSums.implausible(result.metrics, exampleCount: result.numExamples) {
                throw CoordinationError(.unprocessable, "metrics_implausible", "the sums cannot be: \(fault)")
            }
            result.metrics = MetricSums.counted(result.metrics)
        }
        defer {
            if !terms.releasedMetrics.isEmpty { coordinator.blobs.removeAtOnce([terms.spoolPath]) }
            terms.permit.end(terms.spoolPath)
        }
        if !terms.releasedMetrics.isEmpty {
            try terms.permit.begin(terms.spoolPath)
            try await keep(bytes, of: result, terms)
        }
        return try await finish(
            ReceivedUpdate(
                path: terms.spoolPath,
                sha256: Secrets.sha256(bytes),
                byteCount: bytes.count,
                exampleCount: result.numExamples,
                metrics: result.metrics
            ),
            terms,
            of: sender
        )
    }

    // MARK: - In parts

    /// How much of an upload has arrived.
    ///
    /// Whoever asks has given up an earlier request, which writes no more afterwards.
    private func uploadState(
        _ request: ServerRequest,
        _ assignment: AssignmentReference,
        client: String
    ) async throws -> ServerResponse {
        let terms = try await step(request) {
            try $0.beginUpdate(assignment: assignment.text, client: client, isReceiving: false)
        }
        if let receipt = terms.accepted { return Self.complete(receipt) }
        let session = await partialUploads.take(terms.assignmentID, path: terms.partialPath)
        defer { partialUploads.leave(session) }
        // What was being judged a moment ago may have been accepted meanwhile.
        let now = try await step(request) {
            try $0.beginUpdate(assignment: terms.assignmentID, client: client, isReceiving: false)
        }
        if let receipt = now.accepted { return Self.complete(receipt) }
        var response = Self.progress(offset: try session.offset())
        if let name = UploadField.limit { response.headers[name] = "max-size=\(terms.byteLimit)" }
        return response
    }

    /// Takes the next bytes of an upload; with `Upload-Complete: ?1` they are the last, and the update is judged.
    private func appendToUpdate(
        _ request: ServerRequest,
        _ assignment: AssignmentReference,
        client: String
    ) async throws -> ServerResponse {
        let start = try Self.uploadOffset(request)
        let isLast = try Self.isComplete(request)
        let part = try ContentDigest.contentDigest(of: request)
        let whole = try ContentDigest.representationDigest(of: request)
        try Self.requirePartType(request)
        let terms = try await step(request) {
            try $0.beginUpdate(assignment: assignment.text, client: client, digest: whole)
        }
        guard !terms.isEvaluation else {
            throw ParseFailure(status: 415, detail: "this is an evaluation: PUT its sums as application/json")
        }
        if let receipt = terms.accepted { return try Self.again(receipt, whole) }
        let length = request.body.contentLength
        guard start <= terms.byteLimit, (length ?? 0) <= terms.byteLimit - start else {
            throw BodySpool.tooLarge(terms.byteLimit)
        }
        let lease = try uploads.take(
            length ?? terms.byteLimit - start,
            for: terms.assignmentID,
            run: terms.runID,
            until: terms.deadline,
            permit: terms.permit
        )
        let session = await partialUploads.take(terms.assignmentID, path: terms.partialPath)
        defer { partialUploads.leave(session) }
        // What was being judged a moment ago may have been accepted meanwhile.
        let now = try await step(request) {
            try $0.beginUpdate(assignment: terms.assignmentID, client: client, digest: whole)
        }
        if let receipt = now.accepted { return try Self.again(receipt, whole) }
        let arrived = try session.offset()
        guard start == arrived else { throw UploadOffsetError(expected: arrived, provided: start) }
        try session.open(at: start, byteCount: length, byteLimit: terms.byteLimit, lease: lease)
        let sink = DigestingSink(session, isHashed: part != nil)
        do {
            try await request.body.receive(into: sink)
        } catch let error as CoordinationError where error.kind == .tooLarge {
            // It cannot become an update any more.
            try session.truncate(to: 0)
            throw error
        }
        if let part, part != sink.digest() {
            try session.truncate(to: start)
            throw ContentDigest.mismatch("Content-Digest")
        }
        guard isLast else {
            do {
                return Self.progress(offset: try await session.sync())
            } catch {
                // They are not held here: the client sends all again.
                if Self.mayHaveLostBytes(error) { try session.truncate(to: 0) }
                throw error
            }
        }
        return try await finish(session, terms, of: Sender(request: request, client: client), whole: whole)
    }

    private func finish(
        _ session: PartialUpload,
        _ terms: UploadTerms,
        of sender: Sender,
        whole: [UInt8]?
    ) async throws -> ServerResponse {
        var terms = terms
        terms.spoolPath = terms.judgedPath
        coordinator.blobs.want([terms.judgedPath])
        let file = try session.claim(as: terms.judgedPath)
        do {
            let digest = try await DiskQueue.run { try file.digest() }
            if let whole, whole != digest { throw ContentDigest.mismatch("Repr-Digest") }
            let response = try await judge(file, terms, of: sender)
            // Gone already, unless the same update had been accepted before.
            coordinator.blobs.removeAtOnce([terms.judgedPath])
            return response
        } catch {
            // Where nothing is wrong with the bytes the client need not send them again.
            let isKept =
                (error as? CoordinationError)?.kind == .unavailable && !Self.mayHaveLostBytes(error)
                && terms.permit.ifWanted { session.putBack(terms.judgedPath) }
            if !isKept { coordinator.blobs.removeAtOnce([terms.judgedPath]) }
            throw error
        }
    }

    /// Whether bytes that arrived may not be in the file: a disk that has failed to sync once says that a second try succeeded.
    private static func mayHaveLostBytes(_ error: any Error) -> Bool {
        guard let failure = StorageFailure(error) else { return false }
        return [.sync, .write].contains(failure.action) && failure.role != .database
    }

    // MARK: - Fields

    private static var updateDiffers: CoordinationError {
        CoordinationError(.conflict, "update_differs", "another update was accepted for this assignment already")
    }

    private static func progress(offset: Int) -> ServerResponse {
        var response = ServerResponse(status: 204, headers: [.cacheControl: "no-store"])
        if let name = UploadField.offset { response.headers[name] = String(offset) }
        if let name = UploadField.complete { response.headers[name] = "?0" }
        return response
    }

    private static func complete(_ receipt: UpdateReceipt) -> ServerResponse {
        // 0 where nothing is known about the update any more: a client that sends anything hears that it was accepted.
        var response = progress(offset: receipt.bytes)
        if let name = UploadField.complete { response.headers[name] = "?1" }
        if receipt.compared != false, let name = ContentDigest.representationField {
            response.headers[name] = ContentDigest.text(hexadecimal: receipt.sha256)
        }
        return response
    }

    /// The answer to bytes of an update that was accepted already.
    private static func again(_ receipt: UpdateReceipt, _ whole: [UInt8]?) throws -> ServerResponse {
        if receipt.compared == false {
            var receipt = receipt
            receipt.sha256 = whole?.hexadecimal ?? ""
            return try json(receipt)
        }
        guard let whole, whole.hexadecimal == receipt.sha256 else { throw updateDiffers }
        return try json(receipt)
    }

    private static func uploadOffset(_ request: ServerRequest) throws -> Int {
        guard let text = UploadField.offset.flatMap({ request.headers[$0] }) else {
            throw ParseFailure(status: 400, detail: "PATCH takes Upload-Offset: how many bytes have arrived before")
        }
        guard let offset = Int(text), offset >= 0, text.utf8.allSatisfy({ (48...57).contains($0) }) else {
            throw ParseFailure(status: 400, detail: "Upload-Offset must be a whole number of 0 or more")
        }
        return offset
    }

    private static func isComplete(_ request: ServerRequest) throws -> Bool {
        switch UploadField.complete.flatMap({ request.headers[$0] }) {
        case "?1": true
        case "?0", nil: false
        default: throw ParseFailure(status: 400, detail: "Upload-Complete must be ?1 for the last bytes, or ?0")
        }
    }

    private static func requirePartType(_ request: ServerRequest) throws {
        let type = request.headers[.contentType] ?? UploadField.partType
        let known = [
            UploadField.partType, "application/vnd.safetensors", "application/octet-stream", MaskedUpdateFile.mediaType,
        ]
        guard known.contains(type) else {
            throw ParseFailure(status: 415, detail: "send \(UploadField.partType), not \(type)")
        }
    }
}

/// The fields of draft-ietf-httpbis-resumable-upload.
enum UploadField {
    static let offset = HTTPField.Name("Upload-Offset")
    static let complete = HTTPField.Name("Upload-Complete")
    static let limit = HTTPField.Name("Upload-Limit")
    /// The media type of a part.
    static let partType = "application/partial-upload"
}

/// A part that does not begin where the last one ended; the answer says where that is.
struct UploadOffsetError: Error {
    var expected: Int
    var provided: Int
}
