import Foundation
import Logging
import WireFormat

#if canImport(Glibc)
import Glibc
#endif

/// Time in which nobody could deliver is given back: to rounds, assignments and leases, never to tokens, certificates or keys.
extension Coordinator {
    /// Seconds of a hold after which what it has taken is stored, so that a stop does not lose it.
    private static let holdPortion = 30.0
    /// The longest time that is given back at once: what is longer ago was no pause.
    private static let longestPause = 30.0 * 86_400

    /// What a run waits for that hands out no work and whose clock stands still; `nil` where it does not.
    func holdReason(_ run: RunState) -> String? {
        if blobs.verifier.hasDamage, let damage = damage(of: run) { return "the disk: " + damage.sentence }
        return run.specification.isPrivate ? budgets.trust.holdReason : nil
    }

    /// Starts and ends holds, and gives their time back.
    func updateHolds() {
        if blobs.verifier.hasDamage, abs(now.timeIntervalSince(modelsCheckedAt)) >= 1 {
            modelsCheckedAt = now
            blobs.verifier.recheck()
        }
        if blobs.verifier.hasDamage || budgets.trust.isInQuestion || !holds.isEmpty {
            for id in openRuns {
                guard let run = runs[id] else { continue }
                let isHeld = !run.isOver && holdReason(run) != nil
                if isHeld, holds[id] == nil {
                    holds[id] = now
                } else if let since = holds[id], !isHeld || now.timeIntervalSince(since) >= Self.holdPortion {
                    // What cannot be stored now is given back later.
                    guard giveBack(now.timeIntervalSince(since), run: id, cause: "nothing could be handed out") else {
                        continue
                    }
                    holds[id] = isHeld ? now : nil
                    if !isHeld { wakeForWork() }
                }
            }
            holds = holds.filter { runs[$0.key]?.isOver == false }
        }
    }

    /// Gives back what holds have taken so far, so that a stop does not lose it.
    func settleHolds() {
        for (id, since) in holds
        where giveBack(now.timeIntervalSince(since), run: id, cause: "nothing could be handed out") {
            holds[id] = now
        }
    }

    /// Gives a run the time that was lost until now, before one of its deadlines is judged.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed`: no work is refused because the disk does not take its new deadline.
    func settleTime(run id: String) throws {
        if let limit = configuration.awayAfterSeconds, let last = lastTick, now.timeIntervalSince(last) > limit {
            noteAlive()
        }
        guard let since = holds[id], now.timeIntervalSince(since) >= 1 else { return }
        guard giveBack(now.timeIntervalSince(since), run: id, cause: "nothing could be handed out") else {
            throw CoordinationError(
                .unavailable,
                "storage_failed",
                "the new deadline cannot be stored now; send it again"
            )
        }
        holds[id] = now
    }

    /// Notes that the server is there, and gives back the time in which it was not.
    func noteAlive() {
        defer {
            lastTick = now
            markAlive()
        }
        guard let limit = configuration.awayAfterSeconds, let last = lastTick else { return }
        let gap = now.timeIntervalSince(last)
        guard gap > limit else { return }
        logger.notice("The server was away, or its clock jumped", metadata: ["seconds": "\(Int(gap))"])
        giveBackAll(since: last, cause: "the server was away, or its clock jumped")
    }

    /// Gives back what passed between the last sign of life of an earlier process and this one's start.
    func noteStart() {
        guard configuration.awayAfterSeconds != nil else { return }
        defer {
            lastTick = now
            markAlive()
        }
        guard let last = lastAlive(), now.timeIntervalSince(last) > 1 else { return }
        giveBackAll(since: last, cause: "the server was down")
    }

    private func giveBackAll(since last: Date, cause: String) {
        for id in openRuns where holds[id] == nil {
            // What cannot be stored now is given back later.
            if !giveBack(now.timeIntervalSince(last), run: id, cause: cause) { holds[id] = last }
        }
    }

    /// Moves a run's open round, its assignments and their leases by as many seconds as were lost.
    ///
    /// - Returns: Whether it is stored.
    @discardableResult
    private func giveBack(_ seconds: Double, run id: String, cause: String) -> Bool {
        guard seconds > 0, let run = runs[id], !run.isOver, let round = run.round, round.phase.isCollecting else {
            return true
        }
        let seconds = min(seconds, Self.longestPause)
        var changes: [StoreChange] = []
        for assignment in run.live.sorted() {
            guard var record = assignments[assignment] else { continue }
            record.deadline += seconds
            record.leaseUntil = record.leaseUntil.map { $0 + seconds }
            changes.append(.assignment(record))
        }
        do {
            try drive(run: id, [.timeGivenBack(seconds: seconds, cause: cause)], with: changes)
            return true
        } catch {
            logger.error(
                "A run's deadline could not be moved",
                metadata: ["run.id": "\(id)", "reason": "\(ErrorSentence.text(of: error))"]
            )
            return false
        }
    }

    // MARK: - Signs of life

    private var alivePath: String { configuration.dataDirectory + "/alive" }

    /// Says that the server was there now, by the time of a file: once a second at most, and no disk is waited for.
    private func markAlive() {
        guard configuration.awayAfterSeconds != nil, abs(now.timeIntervalSince(aliveMarkedAt)) >= 1 else { return }
        aliveMarkedAt = now
        let seconds = now.timeIntervalSince1970
        var times = [timespec(), timespec()]
        for index in times.indices {
            times[index].tv_sec = Int(seconds.rounded(.down))
            times[index].tv_nsec = Int((seconds - seconds.rounded(.down)) * 1e9)
        }
        if utimensat(AT_FDCWD, alivePath, times, 0) != 0, errno == ENOENT {
            let file = open(alivePath, O_WRONLY | O_CREAT | O_CLOEXEC, 0o600)
            guard file >= 0 else { return }
            futimens(file, times)
            close(file)
        }
    }

    private func lastAlive() -> Date? {
        var status = stat()
        guard stat(alivePath, &status) == 0 else { return nil }
        return Date(timeIntervalSince1970: Double(status.st_mtim.tv_sec) + Double(status.st_mtim.tv_nsec) * 1e-9)
    }
}
