import Foundation

/// Who may send an update now, when not everybody can: decisions without clock, locks or I/O.
///
/// Room is bytes that are declared and have not arrived. As long as it suffices nothing is decided: an upload may be as
/// slow as its line. When somebody waits for room:
///
/// - A run has its share, the room over the runs that use or want it; a run that holds nothing may always have one upload.
/// - Whoever waits in a run within its share goes first, then who has waited longest; one that is known to be slow goes last.
/// - The upload that would need longest for its rest, as it went in the last 30 seconds that it had room, loses its room,
///   and then the next one, until there is enough. It is of the same run, or of a run that holds more than its share.
/// - The first 30 seconds are everybody's. So is each run's oldest upload that is on course to end within an hour and
///   before its deadline: else many that are almost done could keep each other from ending.
///
/// What counts for an assignment counts over all its requests: one that begins again has not become fast.
struct UploadRoom {
    /// What somebody wants to send.
    struct Request: Equatable {
        var assignment: String
        var run: String
        /// Bytes that are to come.
        var byteCount: Int
        /// Until when they are wanted.
        var deadline: Date
    }

    /// What becomes of a request.
    enum Answer: Equatable {
        /// It has room; these assignments lost theirs.
        case admitted(inPlaceOf: [String])
        /// There is no room now.
        case wait
    }

    /// Seconds of room after which an upload's progress is judged, and over which it is.
    static let window = 30.0
    /// Seconds for which one that was told to wait is taken to wait still.
    static let patience = 45.0
    /// Seconds within which an upload must be on course to end to be left alone as its run's oldest.
    static let horizon = 3600.0

    private struct Upload {
        var request: Request
        var admittedAt: Date
        var receivedCount = 0
    }

    private struct Waiter {
        var request: Request
        var since: Date
        var lastAsked: Date
    }

    /// What is known of an assignment's sending, over all its requests.
    private struct Progress {
        var deadline: Date
        /// When it had room for the first time.
        var firstAdmitted: Date
        /// Seconds of room that earlier requests had, and bytes that they brought.
        var seconds = 0.0
        var byteCount = 0
        /// Seconds of room and bytes at some moments of the last window, oldest first.
        var samples: [(seconds: Double, byteCount: Int)] = [(0, 0)]
    }

    private let limit: Int
    private var uploads: [String: Upload] = [:]
    private var waiters: [String: Waiter] = [:]
    private var progress: [String: Progress] = [:]
    private var nextForget = Date.distantPast
    /// Bytes that have room.
    private(set) var byteCount = 0

    /// Begins with nothing under way.
    ///
    /// - Parameter limit: Bytes that have room at a time. Alone an upload has it whatever its size.
    init(limit: Int) {
        self.limit = limit
    }

    /// Whether the assignment has room.
    func holds(_ assignment: String) -> Bool { uploads[assignment] != nil }

    /// Decides about a request; an earlier one of the same assignment ends with it.
    mutating func ask(_ request: Request, at time: Date) -> Answer {
        forget(at: time)
        leave(request.assignment, at: time)
        let needed = min(request.byteCount, limit)
        let since = waiters[request.assignment]?.since ?? time
        let shares = shares(with: request.run)
        func rank(_ request: Request, _ since: Date) -> (Int, Int, Date) {
            (shares.isOver(request.run, adding: request.byteCount) ? 1 : 0, isSlow(request, at: time) ? 1 : 0, since)
        }
        let own = rank(request, since)
        let others = waiters.values.reduce(0) { sum, waiter in
            guard waiter.request.assignment != request.assignment, rank(waiter.request, waiter.since) < own else {
                return sum
            }
            return min(limit, sum + min(limit, waiter.request.byteCount))
        }
        if byteCount + needed + others <= limit {
            admit(request, at: time)
            return .admitted(inPlaceOf: [])
        }
        // What may go, the slowest first; it must be enough for those before, too, or they would never have their turn.
        var freed = 0
        var ended: [String] = []
        let candidates = removable(for: request, shares, at: time)
        guard candidates.reduce(0, { $0 + $1.byteCount }) + limit >= byteCount + needed + others else {
            return wait(request, since: since, at: time)
        }
        for candidate in candidates where byteCount - freed + needed > limit {
            freed += candidate.byteCount
            ended.append(candidate.assignment)
        }
        guard byteCount - freed + needed <= limit else { return wait(request, since: since, at: time) }
        for assignment in ended { leave(assignment, at: time) }
        admit(request, at: time)
        return .admitted(inPlaceOf: ended)
    }

    /// Notes that bytes of an upload have arrived.
    mutating func note(_ assignment: String, receivedCount: Int, at time: Date) {
        guard var upload = uploads[assignment], var known = progress[assignment] else { return }
        upload.receivedCount += receivedCount
        uploads[assignment] = upload
        let seconds = known.seconds + Self.elapsed(from: upload.admittedAt, to: time)
        // A few samples a window: the oldest that is kept is the last one before the window.
        guard let last = known.samples.last, seconds - last.seconds >= Self.window / 6 else { return }
        known.samples.append((seconds, known.byteCount + upload.receivedCount))
        while known.samples.count > 1, known.samples[1].seconds <= seconds - Self.window { known.samples.removeFirst() }
        progress[assignment] = known
    }

    /// Gives the room of an upload back: it has ended, however it did.
    mutating func leave(_ assignment: String, at time: Date) {
        guard let upload = uploads.removeValue(forKey: assignment) else { return }
        byteCount -= min(upload.request.byteCount, limit)
        guard var known = progress[assignment] else { return }
        known.seconds += Self.elapsed(from: upload.admittedAt, to: time)
        known.byteCount += upload.receivedCount
        progress[assignment] = known
    }

    // MARK: -

    private mutating func admit(_ request: Request, at time: Date) {
        waiters[request.assignment] = nil
        uploads[request.assignment] = Upload(request: request, admittedAt: time)
        byteCount += min(request.byteCount, limit)
        if progress[request.assignment] == nil {
            progress[request.assignment] = Progress(deadline: request.deadline, firstAdmitted: time)
        }
    }

    private mutating func wait(_ request: Request, since: Date, at time: Date) -> Answer {
        waiters[request.assignment] = Waiter(request: request, since: since, lastAsked: time)
        return .wait
    }

    /// Drops those who have given up waiting, and what is known of assignments whose time is over.
    private mutating func forget(at time: Date) {
        // Also a clock that was put back must not keep it for ever.
        guard !(0...10).contains(nextForget.timeIntervalSince(time)) else { return }
        nextForget = time.addingTimeInterval(10)
        waiters = waiters.filter { Self.elapsed(from: $0.value.lastAsked, to: time) <= Self.patience }
        progress = progress.filter { $0.value.deadline >= time || uploads[$0.key] != nil }
    }

    /// What the runs hold that use or want room.
    private struct Shares {
        var held: [String: Int]
        var share: Int

        /// Whether the run holds something, and would hold more than its share with so many bytes more.
        func isOver(_ run: String, adding bytes: Int = 0) -> Bool {
            held[run].map { $0 > 0 && $0 + bytes > share } ?? false
        }
    }

    private func shares(with asking: String) -> Shares {
        var held: [String: Int] = [asking: 0]
        for upload in uploads.values { held[upload.request.run, default: 0] += min(limit, upload.request.byteCount) }
        for waiter in waiters.values { held[waiter.request.run, default: 0] += 0 }
        return Shares(held: held, share: limit / held.count)
    }

    private func removable(
        for request: Request,
        _ shares: Shares,
        at time: Date
    ) -> [(assignment: String, byteCount: Int)] {
        var kept: [String: (assignment: String, since: Date)] = [:]
        for (assignment, upload) in uploads {
            guard isOnCourse(assignment, at: time), let since = progress[assignment]?.firstAdmitted else { continue }
            if let known = kept[upload.request.run], (known.since, known.assignment) < (since, assignment) { continue }
            kept[upload.request.run] = (assignment, since)
        }
        return uploads.compactMap { assignment, upload -> (assignment: String, byteCount: Int, rest: Double)? in
            let run = upload.request.run
            guard run == request.run || shares.isOver(run),
                kept[run]?.assignment != assignment, let rest = secondsLeft(assignment, at: time)
            else { return nil }
            return (assignment, min(upload.request.byteCount, limit), rest)
        }.sorted { ($1.rest, $0.assignment) < ($0.rest, $1.assignment) }.map { ($0.assignment, $0.byteCount) }
    }

    private func isOnCourse(_ assignment: String, at time: Date) -> Bool {
        guard let upload = uploads[assignment], let rest = secondsLeft(assignment, at: time) else { return false }
        return rest <= min(Self.horizon, upload.request.deadline.timeIntervalSince(time))
    }

    /// Whether one that waits has shown that it would not end in time.
    private func isSlow(_ request: Request, at time: Date) -> Bool {
        guard let rate = rate(request.assignment, at: time) else { return false }
        return Double(request.byteCount) > rate * min(Self.horizon, request.deadline.timeIntervalSince(time))
    }

    /// Seconds that the rest of an upload takes at the pace of its last window; `nil` before it has had one.
    private func secondsLeft(_ assignment: String, at time: Date) -> Double? {
        guard let upload = uploads[assignment], let rate = rate(assignment, at: time) else { return nil }
        let rest = Double(max(1, upload.request.byteCount - upload.receivedCount))
        return rate > 0 ? rest / rate : .infinity
    }

    /// Bytes a second over the last window of room; `nil` before there was one.
    private func rate(_ assignment: String, at time: Date) -> Double? {
        guard let known = progress[assignment] else { return nil }
        var (seconds, bytes) = (known.seconds, known.byteCount)
        if let upload = uploads[assignment] {
            seconds += Self.elapsed(from: upload.admittedAt, to: time)
            bytes += upload.receivedCount
        }
        guard seconds >= Self.window else { return nil }
        let start = known.samples.last { $0.seconds <= seconds - Self.window } ?? known.samples.first ?? (0, 0)
        return Double(bytes - start.byteCount) / max(Self.window, seconds - start.seconds)
    }

    /// Seconds between two moments; none by a clock that was put back.
    private static func elapsed(from start: Date, to end: Date) -> Double { max(0, end.timeIntervalSince(start)) }
}
