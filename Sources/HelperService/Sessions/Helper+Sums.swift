import Coordination
import Foundation
import Logging
import SecureAggregation
import Tensors
import WireFormat

/// A sum's file, to be sent.
package struct SumFile: Equatable, Sendable {
    package var path: String
    package var byteCount: Int
    /// Of the whole file.
    package var sha256: String
}

extension Helper {
    /// Makes the sum of a list, once.
    ///
    /// The order of steps is what a stop at any of them needs: the sum in a file of its own, synced; one transaction with the state, the
    /// charge and both hashes; the session's key erased; the answer. Before the transaction nothing was released, and the file is
    /// removed. After it the file is the only sum that there will ever be, since the key that opens the seeds goes before the answer.
    ///
    /// - Parameters:
    ///   - id: The session.
    ///   - caller: Its creator.
    ///   - list: The body: `pseudonym ‖ sealed` of each update.
    /// - Returns: M; the same list has the same bytes until they are deleted.
    /// - Throws: `CoordinationError` `session_unknown`, `session_spent` for another list, `session_expired`, `budget_exhausted`,
    ///   `ledger_rolled_back`; `SecureAggregationError` for a list that is refused, after which another list may be sent.
    package func makeSum(_ id: String, of caller: ServerCaller, list: [UInt8]) async throws -> SumFile {
        let digest = Secrets.sha256(list)
        while true {
            // A list that comes while another one is summed waits for what becomes of it.
            await settled(id)
            let session = try session(id, of: caller)
            switch session.state {
            case .summed, .acknowledged:
                guard session.listHash == digest else { throw Self.spent }
                return try keptSum(session)
            case .cancelled, .expired: throw Self.ended(session)
            case .granted: break
            }
            guard session.expiresAt > now else {
                try expire(session)
                throw Self.ended(session)
            }
            try ledger.requireTrust(configuration)
            let domain = try found(caller.domain)
            if let budget = domain.budget, ledger.total(domain.name, budget) > budget.epsilon {
                throw CoordinationError(
                    .conflict,
                    HelperCode.budgetExhausted.rawValue,
                    "the domain's budget was lowered below what is reserved: cancel a session to have its charge back"
                )
            }
            let task = Task { try await self.sum(session, list, digest) }
            sums[id] = task
            let result = await task.result
            if sums[id] == task { sums[id] = nil }
            try result.get()
        }
    }

    /// Waits until no sum of a session is being made.
    ///
    /// Whoever comes first takes the task out: one that has ended gives its value without a pause, in which somebody else could.
    private func settled(_ id: String) async {
        while let running = sums[id] {
            _ = await running.result
            if sums[id] == running { sums[id] = nil }
        }
    }

    /// The most bytes that a session's list may have.
    package func listByteLimit(_ id: String, of caller: ServerCaller) throws -> Int {
        let session = try session(id, of: caller)
        do throws(SecureAggregationError) {
            return Int(try SessionDocument(parsing: session.document).maximum) * SeedList.entryByteCount
                // One more entry is refused by its number, and not by its size.
                + 16 * SeedList.entryByteCount
        } catch {
            throw CoordinationError(.unavailable, "database_damaged", "a stored document is not as it was written")
        }
    }

    /// A session's sum while it is kept.
    ///
    /// - Throws: `CoordinationError` `session_unknown`, `session_expired`; `session_spent` never.
    package func sumFile(_ id: String, of caller: ServerCaller) throws -> SumFile {
        let session = try session(id, of: caller)
        switch session.state {
        case .summed, .acknowledged: return try keptSum(session)
        case .cancelled, .expired: throw Self.ended(session)
        case .granted:
            throw CoordinationError(.notFound, HelperCode.notFound.rawValue, "the session's sum was not asked for yet")
        }
    }

    /// Deletes a sum that the server has; its charge stays.
    package func deleteSum(_ id: String, of caller: ServerCaller) async throws {
        await settled(id)
        let session = try session(id, of: caller)
        switch session.state {
        case .summed: try drop(session)
        case .acknowledged: break
        case .granted:
            throw CoordinationError(.notFound, HelperCode.notFound.rawValue, "the session's sum was not asked for yet")
        case .cancelled, .expired: throw Self.ended(session)
        }
    }

    private static func ended(_ session: SessionRecord) -> CoordinationError {
        CoordinationError(
            .gone,
            HelperCode.sessionExpired.rawValue,
            session.state == .cancelled
                ? "the session was cancelled before its sum" : "the session, or what was kept of it, has ended"
        )
    }

    /// No bytes leave before the session's key is erased, also where an earlier try to erase it has failed.
    private func keptSum(_ session: SessionRecord) throws -> SumFile {
        guard session.state == .summed, session.expiresAt > now, let name = session.sumFile, let hash = session.sumHash,
            let count = session.sumByteCount
        else {
            if session.state == .summed { try drop(session) }
            throw Self.ended(session)
        }
        try eraseKey(session.id)
        return SumFile(path: configuration.sumPath(name), byteCount: count, sha256: hash)
    }

    /// Keeps a sum no longer: first the transaction, then the file.
    func drop(_ session: SessionRecord) throws {
        var dropped = session
        dropped.state = .acknowledged
        dropped.sumFile = nil
        try commit([.session(dropped)])
        count(session.caller.domain, from: .summed, to: .acknowledged)
        try eraseKey(session.id)
        if let name = session.sumFile { try removeSum(unlessKept: name) }
    }

    // MARK: - Steps

    private func sum(_ session: SessionRecord, _ bytes: [UInt8], _ digest: String) async throws {
        let start = ContinuousClock.now
        let document: SessionDocument
        do throws(SecureAggregationError) { document = try SessionDocument(parsing: session.document) } catch {
            throw CoordinationError(.unavailable, "database_damaged", "a stored document is not as it was written")
        }
        let list = try await sumQueue.result { try SeedList(parsing: bytes, of: document) }
        let pseudonyms = list.entries.map(\.pseudonym)
        let scope = ParticipationScope(domain: session.caller.domain, run: session.run, purpose: session.purpose)
        let capped = try store.placesAtCap(Int(document.maxParticipations), scope, pseudonyms)
        guard capped.isEmpty else {
            throw SecureAggregationError(
                .participationCap,
                "\(capped.count) pseudonyms were in \(document.maxParticipations) sums of this run already",
                places: capped
            )
        }
        let needed = Int(clamping: document.coordinateCount) * document.width.byteCount
        guard try store.sumByteCount() + needed <= configuration.sumByteLimit else {
            throw CoordinationError(
                .unavailable,
                HelperCode.listsFull.rawValue,
                "the helper keeps as many bytes of sums as it may: delete sums that were fetched"
            )
        }
        let name = Secrets.identifier("sum")
        let job = SumJob(
            document: document,
            list: list,
            keyPath: configuration.keyPath(session.id),
            path: configuration.sumPath(name)
        )
        let result: SumJob.Result
        do { result = try await sumQueue.result { try job.run() } } catch {
            try? removeSum(unlessKept: name)
            throw error
        }
        try commitSum(session, digest, name, result, scope, pseudonyms)
        // From here on there is one sum; whoever asks again has these bytes once the key is gone.
        try eraseKey(session.id)
        Failpoint.reach()
        metrics.observe("martlet_helper_sum_duration_seconds", (ContinuousClock.now - start) / .seconds(1))
    }

    private func commitSum(
        _ session: SessionRecord,
        _ digest: String,
        _ name: String,
        _ result: SumJob.Result,
        _ scope: ParticipationScope,
        _ pseudonyms: [[UInt8]]
    ) throws {
        try settle()
        let count = ledger.ledger.rows.count
        do {
            try ledger.requireTrust(configuration)
            // Another sum may have been waited for since: what is stored decides.
            guard var summed = try store.session(session.id), summed.state == .granted else { throw Self.spent }
            summed.state = .summed
            summed.listHash = digest
            summed.sumHash = result.sha256
            summed.sumFile = name
            summed.sumByteCount = result.byteCount
            var changes: [HelperChange] = [.session(summed), .participations(scope, pseudonyms: pseudonyms)]
            let budget = domains[session.caller.domain]?.budget
            if let row = try ledger.settle(summed, as: .committed, budget, at: now) { changes.append(.ledger(row)) }
            try commit(changes)
        } catch {
            ledger.truncate(to: count)
            doubtfulSums.insert(name)
            // If the transaction is stored after all, the key goes at the next tick.
            keysToErase.insert(session.id)
            try? settle()
            try? removeSum(unlessKept: name)
            throw error
        }
        self.count(session.caller.domain, from: .granted, to: .summed)
    }

    /// Removes a sum's file unless the database names it.
    func removeSum(unlessKept name: String) throws {
        if try store.sessions(in: .summed).contains(where: { $0.sumFile == name }) {
            doubtfulSums.remove(name)
            return
        }
        try DurableFiles.remove([configuration.sumPath(name)], in: configuration.sumDirectory)
        doubtfulSums.remove(name)
    }

    // MARK: - At start

    /// Ends sessions without a key, erases keys without a session, and removes sums that no session names.
    ///
    /// A granted session whose key is not there was restored: another history may have opened its seeds, so its charge stays. The same
    /// holds for all of them while the ledger contradicts its second record. A restore never revives a session.
    func endWhatAStopLeft() throws {
        var granted: Set<String> = []
        for session in try store.sessions(in: .granted) {
            if ledger.alarm == nil, SecretFile.exists(configuration.keyPath(session.id)) {
                granted.insert(session.id)
            } else {
                logger.warning("A session that may have gone on elsewhere was ended; its charge stays")
                try end(session, as: .expired, charge: .committed)
            }
        }
        for name in try DurableFiles.names(in: configuration.keyDirectory) ?? [] {
            guard !granted.contains(String(name.dropLast(4))) || !name.hasSuffix(".key") else { continue }
            try SecretFile.erase(configuration.keyDirectory + "/" + name)
        }
        let kept = Set(try store.sessions(in: .summed).compactMap(\.sumFile))
        let names = try (DurableFiles.names(in: configuration.sumDirectory) ?? []).filter { !kept.contains($0) }
        try DurableFiles.remove(names.map { configuration.sumPath($0) }, in: configuration.sumDirectory)
    }
}
