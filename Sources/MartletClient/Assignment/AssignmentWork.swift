import Foundation
import MartletTransport
import Tensors
import TrainerInterface
import WireFormat

/// One assignment: the terms are judged, the model is fetched, the trainer works, and what comes of it is made ready to be sent.
///
/// What happens to the finished update is ``PendingDelivery``'s.
struct AssignmentWork: Sendable {
    let assignment: Assignment
    let device: Device

    /// What the trainer is given.
    struct Fetched: Sendable {
        var model: ParameterVector
        var instructions: TrainingInstructions
        var controls: ControlVariateStep?
    }

    init(_ assignment: Assignment, on device: Device) {
        self.assignment = assignment
        self.device = device
    }

    var files: StateFiles { device.files }

    /// Does the work.
    func perform() async throws -> ParticipationOutcome {
        if let generation = assignment.stateGeneration { try device.memory.note(generation: generation) }
        let evaluates = assignment.kind == .evaluate
        device.voice.tell(.assigned(run: assignment.run.text, round: assignment.round, evaluates: evaluates))
        if let code = device.memory.code(of: assignment.id) { return try await reportAgain(code) }
        let session: HelperSession?
        switch try HelperCheck(device).verdict(on: assignment) {
        case .refused(let reason): return try await refuse(reason)
        case .unprotected: session = nil
        case .granted(let granted): session = granted
        }
        switch try await keepingLease(.downloading, { try await judgeServerLedger() }) {
        case .unwanted(let code): return unwanted(code)
        case .done(let refusal?):
            device.status.refusal = OwnerSentence(refusal)
            return try await fail(.init(code: .privacyRefused), code: "ledger_forked", reason: refusal)
        case .done(nil): break
        }
        KeptReport.prune(files, now: device.now)
        let report = KeptReport(assignment, files: files, now: device.now)
        let standing = try standing(of: report)
        if let refusal = try device.state.ledger().refusal(
            of: assignment,
            policy: device.policy,
            paidBy: standing.payer,
            session: session
        ) {
            return try await refuse(refusal)
        }
        // Whatever the data are: later it would tell what they gave.
        guard !assignment.isPrivate || device.trainer.canRehearse else {
            return try await refuse(DataAnswer<Never>.needsRehearsal)
        }
        switch standing {
        case .none, .begun: break
        case .refused(let reason):
            // The server gives its place to others, and this device no further turn.
            return try await fail(.init(code: .notEligible), reason: reason)
        case .made(let note):
            guard let report else { break }
            return try await sendAgain(report, note)
        }
        device.voice.tell(.phase(.downloading))
        do {
            switch try await keepingLease(.downloading, { try await fetch() }) {
            case .unwanted(let code): return unwanted(code)
            case .done(let fetched):
                device.voice.tell(.phase(.training))
                return try await evaluates ? evaluate(fetched) : train(fetched, report, session)
            }
        } catch {
            return try await end(after: error)
        }
    }

    /// Works while heartbeats keep the lease, and tell the phase of the work where nothing private is promised.
    func keepingLease<Result: Sendable>(
        _ phase: WorkPhase,
        _ work: @escaping @Sendable () async throws -> Result
    ) async throws -> LeasedWork<Result> {
        try await device.session.keepingLease(
            of: assignment.id,
            leaseSeconds: assignment.lease?.seconds,
            phase: assignment.isPrivate ? nil : phase,
            work
        )
    }

    // MARK: - Terms

    private func judgeServerLedger() async throws -> String? {
        try await ServerLedgerCheck(device)
            .refusal(
                assignment.ledgerHead,
                isPrivate: assignment.privacy.mode != .none,
                seconds: assignment.deadline.seconds
            )
    }

    /// What there is of a report; a damaged note is put aside, and what comes then is paid for anew.
    private func standing(of report: KeptReport?) throws -> KeptReport.Standing {
        guard let report else { return .none }
        do { return try report.standing() } catch let error as ClientError where error.isStateDamaged {
            let name = try report.setAside(in: device.state, at: device.now)
            device.voice.notify(ofState: "\(error.message); it is now \(name)")
            return .none
        }
    }
}
