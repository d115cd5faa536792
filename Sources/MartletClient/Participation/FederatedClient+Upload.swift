import Foundation
import MartletTransport
import WireFormat

extension FederatedClient {
    /// Updates of fewer bytes are sent again whole when a connection is lost.
    private static let resumableByteCount = 1 << 20
    /// Seconds after the server's deadline in which bytes that nobody acknowledged are still offered.
    static let lateSeconds = 3600.0

    /// The finished update that an earlier attempt has left.
    ///
    /// - Returns: `nil` where there is none, and where its note was damaged: that is put aside, and nothing was sent that is not
    ///   in the ledger.
    func pendingUpload() throws -> ClientState.PendingUpload? {
        do {
            guard var pending = try state.files.read(ClientState.pendingFile, ClientState.PendingUpload.self) else {
                return nil
            }
            if pending.deadline == nil {
                pending.deadline = retry.now().timeIntervalSince1970
                try state.files.write(ClientState.pendingFile, pending)
            }
            return pending
        } catch let error as ClientError where error.isStateDamaged {
            let name = try state.setAside(ClientState.pendingFile, at: retry.now())
            notify(
                .init(
                    kind: .state,
                    message: "\(error.message); it is now \(name), and its update will not be sent"
                )
            )
            return nil
        }
    }

    /// Sends the finished update until the server's receipt or its refusal is there.
    ///
    /// - Throws: `ClientError` when nobody who counts has answered: the bytes stay, and the next attempt sends them.
    func upload(_ pending: ClientState.PendingUpload, isRepeated: Bool = false) async throws -> ParticipationOutcome {
        guard let id = AssignmentID(pending.assignment), let target = ServerPath(pending.updateUrl),
            pending.residualFile.map(StateFileName.isResidual) ?? true, StateFileName.isPlain(pending.fileName)
        else {
            // Noted by a version that did not check what a server said, or damaged.
            let name = try state.setAside(ClientState.pendingFile, at: retry.now())
            notify(.init(kind: .state, message: "the note of a finished update is not usable and is now \(name)"))
            return .ended(EndingReason(code: "state_damaged"))
        }
        if isRepeated, let damage = try damage(of: pending) { return try await giveUp(pending, id, damage) }
        tell(.phase(.uploading))
        let end = (pending.deadline ?? 0) + Self.lateSeconds
        let receipt: ReceiptAnswer
        do {
            try state.files.failpoint()
            let (sent, code) = try await whileGivingSigns(
                of: id,
                leaseSeconds: nil,
                phase: pending.isPrivate == false ? .uploading : nil,
                prefersResult: true
            ) { try await self.send(pending, to: target, isRepeated: isRepeated) }
            try state.files.failpoint()
            guard let sent else {
                return try settle(pending, code: code, reason: "the server no longer waits for this update")
            }
            receipt = sent
        } catch let error as ClientError {
            guard let verdict = error.verdict, verdict != .clientIsOut else {
                guard error.isTemporary, retry.now().timeIntervalSince1970 > end else { throw error }
                return try settle(
                    pending,
                    code: "deadline_passed",
                    reason:
                        "nobody acknowledged the update until an hour after its deadline; the last answer: \(error.message)"
                )
            }
            let outcome = try settle(pending, code: error.code, reason: error.message)
            if verdict == .workCannotBeDelivered {
                // The server waits for it still: the place is for another client.
                try await report(.init(code: .trainingFailed, detail: error.code), for: id)
            }
            return outcome
        }
        bytesUp += receipt.byteCount
        acceptedByteCount = receipt.byteCount
        let outcome = try settle(pending, code: nil, reason: nil)
        // A ledger that was forked meanwhile is told now, and refused when the next work comes.
        _ = try? await ledgerRefusal(receipt.ledgerHead, isPrivate: false)
        return outcome
    }

    private func send(
        _ pending: ClientState.PendingUpload,
        to target: ServerPath,
        isRepeated: Bool
    ) async throws -> ReceiptAnswer {
        let path = state.files.path(pending.fileName)
        let url = try url(target)
        let expected = ExpectedReceipt(assignment: pending.assignment, sha256: pending.sha256)
        let size = FileManager.default.byteCount(atPath: path)
        // A server that reads a byte now and then gets no more time than one that reads none.
        let longest = max(60, (pending.deadline ?? 0) + Self.lateSeconds - retry.now().timeIntervalSince1970)
        if size >= Self.resumableByteCount && pending.contentType == nil {
            var upload = ResumableUpload(
                url: url,
                headers: authorization(),
                path: path,
                expected: expected,
                isRepeated: isRepeated
            )
            upload.end = .now + .seconds(min(longest, 1e9))
            upload.onProgress = followTransfer
            return try await upload.send(over: transport, retry: retry)
        }
        var headers = authorization()
        headers["Content-Type"] = pending.contentType ?? "application/vnd.safetensors"
        headers["Content-Digest"] = "sha-256=:\(pending.sha256):"
        var request = TransportRequest(method: "PUT", url: url, headers: headers, body: .file(path: path))
        request.byteLimit = ServerAnswer.byteLimit
        request.followsLinks = false
        request.longestSeconds = longest
        request.onProgress = followTransfer
        return try await retry.send(request, over: transport) { try expected.read($0, url: url) }
    }

    /// Keeps what hangs on an update that was accepted, drops what hangs on one that was not, and forgets the bytes.
    ///
    /// Each step may be the last one before a kill: then the same answer comes again, and the rest is done.
    private func settle(
        _ pending: ClientState.PendingUpload,
        code: String?,
        reason: String?
    ) throws -> ParticipationOutcome {
        let (files, run, round) = (state.files, pending.run ?? "", pending.round ?? 0)
        if let run = pending.controlRun.flatMap({ RunID($0) }) {
            if code == nil {
                try ControlVariateFile(run: run, files: files).accept(assignment: pending.assignment)
            } else {
                try files.remove(ControlVariateFile.unsent)
            }
        }
        if let file = pending.residualFile {
            // What was left out counts from the update that arrived; one that did not leaves everything as it was.
            if code == nil {
                try files.move(ClientState.residualFile, to: file)
            } else {
                try files.remove(ClientState.residualFile)
            }
        }
        if pending.file != nil, let code, let run = RunID(run),
            let verdict = RefusalVerdict(code: code), [.contentsAreRefused, .workCannotBeDelivered].contains(verdict)
        {
            try KeptReport.refuse(run: run, sha256: pending.sha256, code: code, files: files)
        }
        var ledger = try state.ledger()
        if ledger.finish(pending.payer ?? pending.assignment) { try files.write(ClientState.ledgerFile, ledger) }
        try remember(pending.assignment, code: code ?? "accepted")
        try files.remove(ClientState.pendingFile)
        try files.remove(ClientState.updateFile)
        guard let code else { return .accepted(run: run, round: round) }
        end(pending.assignment, run: run, round: round, code: code, reason: reason)
        return .ended(EndingReason(code: code))
    }

    // MARK: - Damage

    /// What is wrong with the finished file; `nil` when it is what was written.
    ///
    /// - Throws: `ClientError` where the disk does not give it now: then nothing is wrong with it yet.
    private func damage(of pending: ClientState.PendingUpload) throws -> String? {
        let path = state.files.path(pending.fileName)
        guard try state.files.exists(pending.fileName) else { return "\(path) is missing" }
        let digest = try state.files.digest(pending.fileName)
        return digest.base64EncodedString() == pending.sha256 ? nil : "\(path) is not what was written"
    }

    private func giveUp(
        _ pending: ClientState.PendingUpload,
        _ id: AssignmentID,
        _ damage: String
    ) async throws -> ParticipationOutcome {
        let reason = "\(damage): the finished update cannot be sent"
        try remember(pending.assignment, code: "state_damaged")
        let name = try state.setAside(ClientState.pendingFile, at: retry.now())
        try state.files.remove(pending.fileName)
        try state.files.remove(ClientState.residualFile)
        try state.files.remove(ControlVariateFile.unsent)
        end(
            pending.assignment,
            run: pending.run ?? "",
            round: pending.round ?? 0,
            code: "state_damaged",
            reason: reason
        )
        notify(.init(kind: .state, message: "\(reason); its note is now \(name)"))
        try await report(.init(code: .trainingFailed, detail: "state_damaged"), for: id)
        return .ended(EndingReason(code: "state_damaged"))
    }
}
