import Synchronization

/// How much arithmetic one question may take, in cells of loss distributions that are made or transformed.
///
/// Cells and not seconds, so that a question has the same answer on every machine and whatever else runs on it. An answer that was
/// cut short is none: the question is refused by name. Cells are asked for before they are made, so that no question goes over its
/// limit, and a part of a question takes from the whole one's.
public final class LossAllowance: Sendable {
    /// What the questions of the task may take together; `nil`: as much as they need, as where a ledger is recomputed.
    @TaskLocal static var current: LossAllowance?

    /// Of a run file, a plan and a command line: at some 80 to 140 ns a cell less than a second of one core.
    @TaskLocal public static var standard = 6_000_000

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
    ///   - body: Asks.
    /// - Returns: What the body returns.
    /// - Throws: ``PrivacyError/tooCostly(cells:limit:)``, and what the body throws.
    public static func limited<Value>(
        to cells: Int = standard,
        _ body: () throws(PrivacyError) -> Value
    ) throws(PrivacyError) -> Value {
        let answer = $current.withValue(LossAllowance(limit: cells)) {
            Result { () throws(PrivacyError) in try body() }
        }
        return try answer.get()
    }

    /// Answers a question, and says how many cells that took.
    package static func measured<Value>(_ body: () throws -> Value) rethrows -> (value: Value, cells: Int) {
        let allowance = LossAllowance(limit: 1 << 60)
        let value = try $current.withValue(allowance) { try body() }
        return (value, allowance.spent.withLock { $0 })
    }

    /// Asks for cells before they are made.
    ///
    /// - Returns: Whether the present question may make them; where not it is over its limit from here on.
    static func admits(_ cells: Int) -> Bool {
        let cells = min(max(0, cells), 1 << 40)
        var asked: [LossAllowance] = []
        var allowance = current
        while let each = allowance {
            // What is not made is taken from nobody else.
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

    /// Whether the present question is over its limit.
    static var isSpent: Bool { exceeded != nil }

    /// The nearest limit that the present question is over.
    private static var exceeded: LossAllowance? {
        var allowance = current
        while let each = allowance {
            if each.spent.withLock({ $0 > each.limit }) { return each }
            allowance = each.parent
        }
        return nil
    }

    /// Refuses the present question where it is over its limit.
    static func check() throws(PrivacyError) {
        guard let exceeded else { return }
        throw .tooCostly(cells: exceeded.spent.withLock { $0 }, limit: exceeded.limit)
    }
}
