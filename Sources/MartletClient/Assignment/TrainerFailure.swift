import MartletTransport
import TrainerInterface

/// What a trainer threw that none of ours throws, apart from errors of the network and of this device that have the same types.
struct TrainerFailure: Error {
    /// What the trainer said, for the device's owner.
    let words: String
    let type: String

    init(_ error: any Error) {
        type = "\(Swift.type(of: error))"
        words = ErrorWords.of(error)
    }

    /// Runs a trainer; errors with a meaning of their own go through.
    static func catching<Result>(_ body: () async throws -> Result) async throws -> Result {
        do { return try await body() } catch {
            if error is LocalTrainingError || error is ExternalTrainerError || error is SetupFailure { throw error }
            // A trainer that says itself that this device's disk is to blame.
            if let local = error as? ClientError, ClientError.localCodes.contains(local.code) { throw local }
            throw TrainerFailure(error)
        }
    }
}
