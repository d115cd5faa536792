import DifferentialPrivacy
import Foundation
import MartletTransport
import Tensors
import TrainerInterface
import WireFormat

/// What a device's data gave for one assignment; in a private run also that they gave nothing, which nobody may notice.
///
/// Whatever goes wrong after the data were opened (too little of them, cells that cannot be read, NaN, an error of the
/// trainer, memory that was not enough) depends on them. In a private run all of it becomes the same answer: the run's
/// arithmetic on made-up records, its result thrown away, and then zeros, which are clipped, noised, sent and charged like
/// any update. Without privacy the error is thrown.
struct DataAnswer<Value> {
    /// `nil` where the data gave nothing.
    var value: Value?
    /// Why, for the device's owner.
    var shortfall: String?

    /// Does a task.
    ///
    /// - Parameters:
    ///   - task: What is asked of the trainer.
    ///   - assignment: Whose terms decide what an error becomes.
    ///   - trainer: Does the work.
    ///   - model: The version to start from.
    ///   - instructions: The assignment's.
    ///   - earlierTries: How often the process ended in the middle of the same work.
    ///   - body: Opens the data.
    /// - Throws: What the trainer cannot do on any data; cancellation; without privacy every error.
    init(
        _ task: TrainingTask,
        of assignment: Assignment,
        by trainer: any LocalTrainer,
        model: ParameterVector,
        instructions: TrainingInstructions,
        earlierTries: Int,
        _ body: () async throws -> Value
    ) async throws {
        guard assignment.isPrivate else {
            value = try await body()
            return
        }
        try await trainer.check(task, model: model, instructions: instructions)
        do {
            // A process that ends twice in the middle of the same work has met data that it cannot work on, or too little
            // memory for them.
            guard earlierTries < 2 else { throw LocalTrainingError.unusableData(reason: Self.diedBefore) }
            value = try await body()
        } catch {
            if Self.isCancellation(error, instructions) { throw error }
            // The data were not opened yet: it would be the same with any.
            if error is SetupFailure { throw error }
            shortfall = Self.sentence(error)
            // One that met too little memory for made-up records as well does without them.
            if earlierTries < 3 {
                do { try await trainer.rehearse(task, model: model, instructions: instructions) } catch {
                    shortfall = (shortfall ?? "") + Self.hasNotRehearsed + Self.sentence(error)
                }
            }
            try instructions.cancellation?.check()
        }
    }

    private static var diedBefore: String {
        "this process ended twice in the middle of the work: memory may be too little for the data"
    }

    private static var hasNotRehearsed: String {
        "; the work on made-up data failed as well, and how soon this was done may tell that the data gave nothing: "
    }

    /// Why a trainer does not take part in private runs.
    static var needsRehearsal: String {
        "in a private run a trainer must have made-up data to work on when its own give nothing, since how soon it is done would "
            + "tell: give --made-up-data with --trainer-command; a trainer of your own implements rehearse and canRehearse"
    }

    private static func isCancellation(_ error: any Error, _ instructions: TrainingInstructions) -> Bool {
        if instructions.cancellation?.isCancelled ?? false { return true }
        // The client is being stopped by its owner.
        return error is CancellationError || (error as? ExternalTrainerError)?.rule == .cancelled
    }

    private static func sentence(_ error: any Error) -> String {
        switch error {
        case let error as LocalTrainingError: error.ownerSentence
        case let error as ExternalTrainerError: error.description
        case let error as ClientError: error.message
        case let error as SetupFailure: error.failure.message
        case let error as TrainerFailure: "the trainer failed: \(error.words)"
        default: "\(error)"
        }
    }
}

extension DataAnswer: Sendable where Value: Sendable {}

extension Assignment {
    /// Whether anything is promised about the device's data: by noise, or by a mask.
    ///
    /// Nothing beside a masked update may tell of the data either: no failure, no number, no size and no time.
    var isPrivate: Bool { privacy.mode != .none || protection != nil }

    /// The update of a client whose data gave nothing: zeros, or the vote for no prefix.
    var nothing: ParameterVector {
        let layout = training.usesControlVariates ? ControlVariates.jointLayout(tensors) : updateTensors ?? tensors
        guard training.usesControlVariates == false, kind == .analyze, layout == PrefixTrie.voteLayout else {
            return ParameterVector(zeros: layout)
        }
        return ParameterVector(layout: layout, values: [-1, 0])
    }
}
