package import WireFormat

/// Why a state machine refused an event; its value is unchanged.
package enum RoundError: Error, Equatable, Sendable {
    case wrongRunState(current: RunPhase, allowed: [RunPhase])
    case roundOver(RoundPhase)
    case notAggregating(RoundPhase)
    case assignmentEnded(AssignmentState, code: String?)
    case deadlinePassed

    /// As the caller is told.
    package var refusal: CoordinationError {
        switch self {
        case .wrongRunState(let current, let allowed):
            CoordinationError(
                .conflict,
                "wrong_state",
                "the run is \(current); this is possible when it is \(allowed.map(\.rawValue).joined(separator: " or "))"
            )
        case .roundOver(.aggregating), .roundOver(.committed):
            CoordinationError(.gone, "round_full", "the round has all the updates that it wants")
        case .roundOver, .notAggregating:
            CoordinationError(.gone, "round_closed", "the round no longer waits for this update")
        case .assignmentEnded(.expired, _):
            CoordinationError(
                .gone,
                "lease_expired",
                "no sign of life came in time, and the work was given to another client; check in for new work"
            )
        case .assignmentEnded(.superseded, let code?) where code != ProblemCode.roundFull.rawValue:
            CoordinationError(.gone, code, "the work is no longer wanted: \(code.replacing("_", with: " "))")
        case .assignmentEnded(.superseded, _):
            CoordinationError(.gone, "round_full", "the round has all the updates that it wants")
        case .assignmentEnded(let state, _):
            CoordinationError(.conflict, "assignment_ended", "the assignment ended as \(state.rawValue)")
        case .deadlinePassed:
            CoordinationError(
                .gone,
                "round_closed",
                "the deadline has passed; the round no longer waits for this update"
            )
        }
    }
}
