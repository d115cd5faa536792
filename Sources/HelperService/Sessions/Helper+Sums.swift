import Coordination
import Dispatch
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
    package nonisolated func makeSum(_ id: String, of caller: ServerCaller, list: [UInt8]) async throws -> SumFile {
        let digest = try await DispatchQueue.global().result { Secrets.sha256(list) }
        return try await makeSum(id, of: caller, list: list, digest: digest)
    }

    private func makeSum(
        _ id: String,
        of caller: ServerCaller,
        list: [UInt8],
        digest: String
    ) async throws -> SumFile {
        while true {
            // A list that comes while another one is summed waits for what becomes of it.
            await settled(id)
            let session = try session(id, of: caller)
            guard session.state == .granted else { return try repeatedSum(session, digest: digest) }
            guard !isOver(session) else {
                try expire(session)
                throw Self.ended(session)
            }
            try requireTrust()
            guard refusedLists[id, default: 0] < configuration.refusedListLimit else {
                throw DomainRules.refusal(
                    "\(configuration.refusedListLimit) lists of the session were refused after its seeds were tried: cancel it"
                )
            }
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

    /// Waits until no sum of a session is being made; nothing else waits for one.
    ///
    /// Whoever comes first takes the task out: one that has ended gives its value without a pause, in which somebody else could.
    func settled(_ id: String) async {
        while let running = sums[id] {
            _ = await running.result
            if sums[id] == running { sums[id] = nil }
        }
    }

    /// What a server may send as a list.
    package struct ExpectedList: Sendable {
        package var byteLimit: Int
        /// Whether the session's sum was made: then the list's hash alone is looked at.
        package var isSummed: Bool
    }

    /// What a session's server may send as a list.
    ///
    /// - Throws: `CoordinationError` `session_unknown`, `session_expired`.
    package func expectedList(_ id: String, of caller: ServerCaller) throws -> ExpectedList {
        let session = try session(id, of: caller)
        if session.state == .cancelled || session.state == .expired { throw Self.ended(session) }
        do throws(SecureAggregationError) {
            let maximum = Int(try SessionDocument(parsing: session.document).maximum)
            // One more entry is refused by its number, and not by its size.
            return ExpectedList(
                byteLimit: (maximum + 16) * SeedList.entryByteCount,
                isSummed: session.state != .granted
            )
        } catch {
            throw CoordinationError(.unavailable, "database_damaged", "a stored document is not as it was written")
        }
    }

    /// The sum of a list that was summed before, by SHA-256 of the list.
    package func repeatedSum(_ id: String, of caller: ServerCaller, digest: String) throws -> SumFile {
        try repeatedSum(try session(id, of: caller), digest: digest)
    }

    private func repeatedSum(_ session: SessionRecord, digest: String) throws -> SumFile {
        switch session.state {
        case .summed, .acknowledged:
            guard session.listHash == digest else { throw Self.spent }
            return try keptSum(session)
        case .cancelled, .expired, .granted: throw Self.ended(session)
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

    /// The file of a sum that may be sent.
    ///
    /// No bytes leave before the session's key is erased, also where an earlier try to erase it has failed, nor while another history may
    /// have made another sum. A sum that a backup did not have is gone.
    private func keptSum(_ session: SessionRecord) throws -> SumFile {
        try ledger.requireNoAlarm()
        guard session.state == .summed, session.expiresAt > now, let name = session.sumFile, let hash = session.sumHash,
            let count = session.sumByteCount, try DurableFiles.exists(configuration.sumPath(name))
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
        // If the transaction fails and is stored after all, key and file still go.
        keysToErase.insert(session.id)
        if let name = session.sumFile { sumsToErase.insert(name) }
        try commit([.session(dropped)])
        count(session.caller.domain, from: .summed, to: .acknowledged)
        try eraseKey(session.id)
        if let name = session.sumFile {
            // Its server has these bytes, so they are no second sum.
            try DurableFiles.remove([configuration.sumPath(name)], in: configuration.sumDirectory)
            sumsToErase.remove(name)
        }
    }

    // MARK: - Steps

    private func sum(_ session: SessionRecord, _ bytes: [UInt8], _ digest: String) async throws {
        let start = ContinuousClock.now
        let document: SessionDocument
        do throws(SecureAggregationError) { document = try SessionDocument(parsing: session.document) } catch {
            throw CoordinationError(.unavailable, "database_damaged", "a stored document is not as it was written")
        }
        let queue = sumQueue(session.caller.domain)
        let scope = ParticipationScope(caller: session.caller, run: session.run, purpose: session.purpose)
        let cap = Int(document.maxParticipations)
        let earlier = committedSums[scope]
        let list = try await queue.result { [store] in
            let list = try SeedList(parsing: bytes, of: document)
            try Self.check(list, cap, scope, store)
            return list
        }
        let name = Secrets.identifier("sum")
        // The name is known before the file is: whatever happens, it is kept by a transaction or erased.
        try reserveRoom(name, session.caller.domain, document)
        defer { sumsInWork[name] = nil }
        let job = SumJob(
            document: document,
            list: list,
            listDigest: digest,
            keyPath: configuration.keyPath(session.id),
            path: configuration.sumPath(name)
        )
        do {
            let result = try await queue.result { try job.run() }
            if committedSums[scope] != earlier { try Self.check(list, cap, scope, store) }
            try commitSum(session, digest, name, result, scope, list.entries.map(\.pseudonym))
        } catch {
            if (error as? SecureAggregationError)?.code == .seedsUnopened { refusedLists[session.id, default: 0] += 1 }
            sumsToErase.insert(name)
            if (try? isKept(name)) == false, (try? await queue.result { try job.erase() }) != nil {
                sumsToErase.remove(name)
            }
            throw error
        }
        // From here on there is one sum; whoever asks again has these bytes once the key is gone.
        try eraseKey(session.id)
        Failpoint.reach()
        metrics.observe("martlet_helper_sum_duration_seconds", (ContinuousClock.now - start) / .seconds(1))
    }

    private static func check(_ list: SeedList, _ cap: Int, _ scope: ParticipationScope, _ store: HelperStore) throws {
        let capped = try store.placesAtCap(cap, scope, list.entries.map(\.pseudonym))
        guard capped.isEmpty else {
            throw SecureAggregationError(
                .participationCap,
                "\(capped.count) pseudonyms were in \(cap) sums of this run already",
                places: capped
            )
        }
    }

    /// Room on the disk for a sum that will be made: of its domain, where one sum always has room, and of all.
    private func reserveRoom(_ name: String, _ domain: String, _ document: SessionDocument) throws {
        let (needed, overflows) = Int(clamping: document.coordinateCount)
            .multipliedReportingOverflow(by: document.width.byteCount)
        var used = try store.sumByteCounts()
        for sum in sumsInWork.values { used[sum.domain, default: 0] += sum.byteCount }
        let own = used[domain] ?? 0
        let all = used.values.reduce(0, +)
        guard !overflows, all <= configuration.sumByteLimit - needed,
            own == 0 || own + needed <= configuration.domainSumByteLimit
        else {
            throw CoordinationError(
                .unavailable,
                HelperCode.listsFull.rawValue,
                "the helper keeps as many bytes of sums as it may: delete sums that were fetched"
            )
        }
        sumsInWork[name] = (domain, needed)
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
            try requireTrust()
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
            try? settle()
            throw error
        }
        committedSums[scope, default: 0] += 1
        self.count(session.caller.domain, from: .granted, to: .summed)
    }

    /// Whether the database names a sum's file.
    private func isKept(_ name: String) throws -> Bool {
        try settle()
        return try store.sessions(in: .summed).contains { $0.sumFile == name }
    }

    // MARK: - At start

    /// Ends sessions without a key of their own, and sums without a file.
    ///
    /// A granted session whose key is not there, or is a copy, was restored: another history may have opened its seeds, so its charge
    /// stays. A restore never revives a session.
    func endWhatAStopLeft() throws {
        for session in try store.sessions(in: .granted) {
            if try SecretFile.identity(configuration.keyPath(session.id)) == session.keyFile {
                deadlines[session.id] = configuration.uptime() + max(0, session.expiresAt.timeIntervalSince(now))
            } else {
                logger.warning("A session that may have gone on elsewhere was ended; its charge stays")
                try end(session, as: .expired, charge: .committed)
            }
        }
        for session in try store.sessions(in: .summed) {
            guard let name = session.sumFile, try DurableFiles.exists(configuration.sumPath(name)) else {
                try drop(session)
                continue
            }
        }
    }
}
