import Synchronization

/// Limits the arithmetic of one question, in cells of loss distributions that are made or transformed.
///
/// The unit is cells and not seconds, so that a question has the same answer on every machine and under every load. A question over its
/// limit gets no answer and is refused with ``PrivacyError/tooCostly(cells:limit:)``. Cells are requested before they are made. A limit
/// inside another one counts against both.
public final class LossAllowance: Sendable {
    /// The limit of all questions of this task together; `nil` is no limit, for example when a ledger is recomputed.
    @TaskLocal static var current: LossAllowance?

    /// The limit for a run file, a plan or a command: with 80 to 140 ns for each cell, less than a second of one core.
    @TaskLocal public static var standard = 8_000_000

    private let limit: Int
    private let parent: LossAllowance?
    private let spent = Mutex(0)

    private init(limit: Int) {
        self.limit = limit
        parent = Self.current
    }

    /// Answers a question within a limit.
    ///
    /// - Parameters:
    ///   - cells: The limit.
    ///   - body: Computes the answer.
    /// - Returns: The answer.
    /// - Throws: ``PrivacyError/tooCostly(cells:limit:)``, and what `body` throws.
    public static func limited<Value>(
        to cells: Int = standard,
        _ body: () throws(PrivacyError) -> Value
    ) throws(PrivacyError) -> Value {
        let answer = $current.withValue(LossAllowance(limit: cells)) {
            Result { () throws(PrivacyError) in try body() }
        }
        return try answer.get()
    }

    /// Answers a question, and returns how many cells that took.
    package static func measured<Value>(_ body: () throws -> Value) rethrows -> (value: Value, cells: Int) {
        let allowance = LossAllowance(limit: 1 << 60)
        let value = try $current.withValue(allowance) { try body() }
        return (value, allowance.spent.withLock { $0 })
    }

    /// Answers a question that waits, and returns how many cells were made in the task that asked, wherever that ran.
    package static func measuredInTask<Value>(
        _ body: () async throws -> Value
    ) async rethrows -> (value: Value, cells: Int) {
        let allowance = LossAllowance(limit: 1 << 60)
        let value = try await $current.withValue(allowance) { try await body() }
        return (value, allowance.spent.withLock { $0 })
    }

    /// Requests cells before they are made.
    ///
    /// - Returns: Whether the current question may make them. After a refusal the question stays over its limit.
    static func admits(_ cells: Int) -> Bool {
        let cells = min(max(0, cells), 1 << 40)
        var asked: [LossAllowance] = []
        var allowance = current
        while let each = allowance {
            // Refused cells count for this limit only, and not for those around it.
            if each.spent.withLock({ $0 + cells > each.limit }) {
                each.spent.withLock { $0 += cells }
                return false
            }
            asked.append(each)
            allowance = each.parent
        }
        for each in asked { each.spent.withLock { $0 += cells } }
        return true
    }

    /// Whether the current question is over its limit.
    static var isSpent: Bool { exceeded != nil }

    /// The innermost limit that the current question is over.
    private static var exceeded: LossAllowance? {
        var allowance = current
        while let each = allowance {
            if each.spent.withLock({ $0 > each.limit }) { return each }
            allowance = each.parent
        }
        return nil
    }

    /// Throws if the current question is over its limit.
    static func check() throws(PrivacyError) {
        guard let exceeded else { return }
        throw .tooCostly(cells: exceeded.spent.withLock { $0 }, limit: exceeded.limit)
    }
}
