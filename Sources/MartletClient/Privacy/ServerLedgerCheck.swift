import DifferentialPrivacy
import Foundation
import MartletTransport
import StrictJSON
import Tensors
package import WireFormat

/// Holds the server to its privacy ledger: a device keeps the last head that it was told, and takes only a ledger that extends it.
///
/// A server that shows fewer charges to some than to others, or forgets some, needs two ledgers; a device that has seen the one
/// notices the other. Two devices that never compare can be shown different ones for ever.
package struct ServerLedgerCheck: Sendable {
    /// What came of comparing a head with the one that the device keeps.
    private enum Verdict: Equatable, Sendable {
        /// It is the same one, or extends it; it is kept now.
        case holds
        /// The head was lost when the server was restored from a backup, as a row of the new ledger says; the new one is kept.
        case restored(String)
        /// It is another ledger.
        case forked(String)
    }

    /// Rows that a device recomputes in one look at a ledger, at most; the next look goes on from there.
    @TaskLocal package static var rowLimit = 1_000_000
    /// Seconds that a device gives one look at the server's ledger, at most.
    package static let longestSeconds = 300.0

    private let session: ServerSession
    private let files: StateFiles
    private let status: ClientStatus

    package init(_ device: Device) {
        session = device.session
        files = device.files
        status = device.status
    }

    /// Judges the head that came with an assignment, and tells the owner what is wrong with it.
    ///
    /// - Parameters:
    ///   - head: The head.
    ///   - isPrivate: Whether the work is: then a ledger that had a head must have one.
    ///   - seconds: How long the work can wait, at least one; no look takes longer than ``longestSeconds``.
    /// - Returns: Why the work is refused, or `nil`.
    /// - Throws: `ClientError` where the server is out of reach: then nothing is known yet.
    package func refusal(
        _ head: PopulationLedgerHead?,
        isPrivate: Bool,
        seconds: Double = ServerLedgerCheck.longestSeconds
    ) async throws -> String? {
        switch try await verdict(head, isPrivate: isPrivate, seconds: min(max(1, seconds), Self.longestSeconds)) {
        case .holds: return nil
        case .restored(let sentence):
            status.ledgerNotice = OwnerSentence(sentence)
            return nil
        case .forked(let reason):
            let sentence =
                "the server's privacy ledger is not the one that this device saw before (ledger_forked): \(reason). Its epsilon "
                + "may be false. Ask its operator; to take the new ledger, remove \(StateFile.ledgerHead.name) from the state "
                + "directory"
            status.ledgerNotice = OwnerSentence(sentence)
            return sentence
        }
    }

    /// Compares, within a time: whatever the server does, a look at its ledger has an end.
    private func verdict(
        _ head: PopulationLedgerHead?,
        isPrivate: Bool,
        seconds: Double
    ) async throws -> Verdict {
        try await withThrowingTaskGroup(of: Verdict?.self) { group in
            group.addTask { try await self.verdict(head, isPrivate: isPrivate) }
            group.addTask {
                try await Task.sleep(for: .seconds(seconds))
                return nil
            }
            defer { group.cancelAll() }
            guard let verdict = try await group.next() ?? nil else {
                throw ClientError(
                    code: "network",
                    message:
                        "the server has not shown its privacy ledger within \(Int(seconds)) s; nothing is known of it yet"
                )
            }
            return verdict
        }
    }

    private func verdict(_ head: PopulationLedgerHead?, isPrivate: Bool) async throws -> Verdict {
        if let head, !head.isWellFormed { return .forked("the head that it states is none") }
        let file = LedgerHeadFile(files: files)
        let known: PopulationLedgerHead?
        do { known = try file.known(population: head?.population) } catch let error as ClientError
            where error.isStateDamaged
        {
            return .forked("the head that the device keeps cannot be read")
        }
        guard let head else {
            return known != nil && isPrivate ? .forked("it states no head any more") : .holds
        }
        guard let known else {
            try file.keep(head)
            return .holds
        }
        guard head.population == known.population else {
            return .forked("it is the ledger of another population, \(head.population)")
        }
        if head == known {
            if try !files.exists(.ledgerHead) { try file.keep(head) }
            return .holds
        }
        if head.number > known.number {
            let reached = try await heads(from: known, through: head.number) { _, _ in }
            if reached == head {
                try file.keep(head)
                return .holds
            }
            if let reached, reached.number < head.number {
                // It extends what is known, as whatever is to hold later has to extend it.
                try file.keep(reached)
                throw Self.notKnownYet(reached, head)
            }
        }
        if let (sentence, reached) = try await restoration(of: known, to: head) {
            try file.keep(reached)
            return .restored(sentence)
        }
        return .forked(
            head.number < known.number
                ? "it ends with row \(head.number), and row \(known.number) was seen"
                : "row \(head.number) does not lead back to row \(known.number) that was seen"
        )
    }

    private static func notKnownYet(_ reached: PopulationLedgerHead, _ head: PopulationLedgerHead) -> ClientError {
        ClientError(
            code: "network",
            message:
                "the server's privacy ledger has grown by more rows than one look recomputes: \(reached.number) of "
                + "\(head.number) are known to hold; the next look goes on"
        )
    }

    /// Recomputes heads from one that is known, page by page; a page that is not full is the last one.
    ///
    /// - Returns: The head after the row `number`, or after as many rows as one look recomputes; `nil` where the server does not show
    ///   the links.
    private func heads(
        from known: PopulationLedgerHead,
        through number: Int,
        _ seen: (_ number: Int, _ link: String) -> Void
    ) async throws -> PopulationLedgerHead? {
        let number = min(number, known.number + Self.rowLimit)
        var (place, hash) = (known.number, known.hash)
        while place < number {
            let wanted = min(LedgerLinks.pageCount, number - place) * LedgerLinks.byteCount
            guard
                let page = try await answer(
                    Endpoints.ledgerLinks(PopulationReference(known.population)).with("from", place),
                    type: "application/octet-stream",
                    byteLimit: LedgerLinks.pageCount * LedgerLinks.byteCount
                ), page.count >= wanted, page.count % LedgerLinks.byteCount == 0
            else { return nil }
            let links = Array(page.prefix(wanted))
            for start in stride(from: 0, to: wanted, by: LedgerLinks.byteCount) {
                place += 1
                let link = links[start..<start + LedgerLinks.byteCount].hexadecimal
                hash = LedgerChain.head(after: hash, number: place, link: link)
                seen(place, link)
            }
        }
        return PopulationLedgerHead(population: known.population, number: number, hash: hash)
    }

    /// What the server shows of its ledger; `nil` where it refuses to, or shows more than it may.
    ///
    /// - Throws: `ClientError` where somebody else answers or nobody does: that says nothing of the ledger.
    private func answer<Document>(
        _ target: RequestTarget<NoDocument, Document>,
        type: String,
        byteLimit: Int
    ) async throws -> Data? {
        var request = try session.request(target)
        request.byteLimit = byteLimit
        request.longestSeconds = Self.longestSeconds
        let url = request.url
        do {
            return try await session.retry.send(request, over: session.transport) { response in
                guard (200..<300).contains(response.status) else { throw ClientError(answer: response, url: url) }
                guard response.status == 200, response.mediaType == type, response.body.count <= byteLimit else {
                    throw ClientError.foreign(response, url: url)
                }
                return response.body
            }
        } catch let error as ClientError
            where error.code == ClientError.serverInvalid || error.verdict.map({ $0 != .clientIsOut }) ?? false
        {
            return nil
        }
    }

    /// What an acknowledgement in the new ledger says of a head that it does not lead to; `nil` where there is none.
    ///
    /// The row is in the chain that leads to the new head: from the hash before it, which the server states, or from the beginning. A
    /// wrong hash leads to another head.
    ///
    /// - Returns: A sentence for the owner, and the head to go on with.
    private func restoration(
        of known: PopulationLedgerHead,
        to head: PopulationLedgerHead
    ) async throws -> (sentence: String, reached: PopulationLedgerHead)? {
        guard
            let body = try await answer(
                Endpoints.ledgerAcknowledgements(PopulationReference(known.population)),
                type: "application/json",
                byteLimit: ServerAnswer.byteLimit
            ), let document = try? JSONValue.parse(Array(body)),
            let rows = try? LedgerAcknowledgements.read(document).items
        else { return nil }
        var candidates: [Int: (link: String, reason: String?)] = [:]
        var start = PopulationLedgerHead(population: known.population, number: 0, hash: LedgerChain.empty)
        for row in rows where row.number <= head.number {
            guard let note = row.note, note.lost.contains(where: { $0.covers(known) }) else { continue }
            let link = LedgerChain.link(
                population: known.population,
                number: row.number,
                run: "",
                round: row.round,
                attempt: row.attempt,
                state: row.state,
                event: row.event,
                milliseconds: row.createdAtMs
            )
            candidates[row.number] = (link, note.reason)
            if let previous = row.previousHash, row.number - 1 >= start.number {
                start = PopulationLedgerHead(population: known.population, number: row.number - 1, hash: previous)
            }
        }
        guard !candidates.isEmpty else { return nil }
        // The row counts only where it is in the chain that leads to the new head.
        var found: (number: Int, reason: String)?
        let reached = try await heads(from: start, through: head.number) { number, link in
            if let candidate = candidates[number], candidate.link == link {
                found = (number, PrintableText.escaped(candidate.reason ?? "no reason", limit: 500))
            }
        }
        guard let reached, reached.number < head.number || reached == head else { return nil }
        guard let found else {
            if reached.number < head.number { throw Self.notKnownYet(reached, head) }
            return nil
        }
        let sentence =
            "the server was restored from a backup, and row \(known.number) of its privacy ledger, which this device saw, was "
            + "lost: row \(found.number) of the new one says so (\(found.reason)). The device goes on with the new ledger"
        return (sentence, reached)
    }
}
