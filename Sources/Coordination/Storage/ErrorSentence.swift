import Aggregation
import DifferentialPrivacy
import Tensors

/// What went wrong, for people who do not read Swift; no path.
enum ErrorSentence {
    static func text(of error: any Error) -> String {
        if let failure = StorageFailure(error) { return failure.sentence }
        return switch error {
        case let error as CoordinationError: error.message
        case let error as HelperFailure: error.sentence
        case let error as AggregationError: error.description
        case let error as SafetensorsError: error.description
        case let error as PrivacyError: error.description
        default: "an error inside the server; its log says more"
        }
    }
}
