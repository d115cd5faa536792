import Foundation
import MartletTransport
import Tensors
import WireFormat

/// The one answer to an upload that says that it has arrived.
package struct ExpectedReceipt: Sendable {
    /// The assignment's id.
    package var assignment: String
    /// The file's SHA-256 in Base64.
    package var sha256: String

    /// Names an upload.
    package init(assignment: String, sha256: String) {
        self.assignment = assignment
        self.sha256 = sha256
    }

    /// Reads an answer: a receipt for this assignment and these bytes.
    ///
    /// - Throws: `ClientError`: the server's refusal, or that somebody else has answered.
    func read(_ response: TransportResponse, url: String) throws -> ReceiptAnswer {
        try response.document(from: url) {
            let receipt = try? ServerAnswer.read(response, of: "receipt", ReceiptAnswer.read)
            guard let receipt, receipt.assignment.text == assignment, receipt.state.is(.accepted),
                receipt.sha256.text == Data(base64Encoded: sha256)?.hexadecimal
            else { throw ClientError.foreign(response, url: url) }
            return receipt
        }
    }
}
