import Foundation
import StrictJSON

/// What an error that is none of ours says, in one printable line.
package enum ErrorWords {
    package static func of(_ error: any Error) -> String {
        let isWorded = type(of: error) is NSError.Type || error is any CustomNSError || error is any LocalizedError
        return PrintableText.escaped(isWorded ? error.localizedDescription : "\(error)", limit: 300)
    }
}

extension ClientError {
    /// An error that nobody has foreseen: another attempt may go better.
    package init(unexpected error: any Error) {
        self.init(code: "unexpected", message: "this attempt failed: \(ErrorWords.of(error))")
    }
}
