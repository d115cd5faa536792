import Foundation

/// What a device remembers about its assignments beyond its ledger: which ones it has ended, and the generation of its state.
struct AssignmentLog: Codable, Equatable, Sendable {
    struct Ending: Codable, Equatable, Sendable {
        var assignment: String
        /// `accepted`, or the code that the work ended with.
        var code: String
    }

    /// Grows with each assignment, by the server's word; an older one tells the server of a copy of this directory.
    var generation = 0
    /// The last endings, the newest at the end.
    var ended: [Ending] = []

    private static let limit = 64

    /// How an assignment ended; `nil` for one that has not.
    func code(of assignment: String) -> String? { ended.last { $0.assignment == assignment }?.code }

    /// Remembers an ending.
    mutating func end(_ assignment: String, code: String) {
        ended.removeAll { $0.assignment == assignment }
        ended.append(.init(assignment: assignment, code: code))
        ended.removeFirst(max(0, ended.count - Self.limit))
    }
}
