import Foundation
package import StrictJSON
package import Tensors
import WireFormat

/// The one way from a server's bytes to values.
package enum ServerAnswer {
    /// Bytes of one answer of the protocol, at most: an assignment with the names of ten thousand tensors has one million.
    package static let byteLimit = 4 << 20

    /// Reads an answer's body.
    ///
    /// - Throws: ``ClientError`` with code `server_invalid` that names the fields that do not fit.
    package static func read<Value>(
        _ response: TransportResponse,
        of what: String,
        _ read: (JSONValue) throws(DocumentError) -> Value
    ) throws -> Value {
        guard response.body.count <= byteLimit else {
            throw ClientError(invalid: "\(what) has more than \(byteLimit) bytes")
        }
        do throws(DocumentError) {
            return try read(.parse(Array(response.body)))
        } catch {
            throw ClientError(invalid: what, error)
        }
    }
}

extension ClientError {
    /// The code of whatever a server says that the protocol does not allow.
    package static let serverInvalid = "server_invalid"

    /// Something that the protocol does not allow.
    package init(invalid message: String) { self.init(code: Self.serverInvalid, message: message) }

    /// What of an answer does not fit, field by field; the server's own words in it are escaped and cut.
    package init(invalid what: String, _ error: DocumentError) {
        let shown = error.problems.prefix(5).map { PrintableText.escaped($0.description, limit: 300) }
        let rest = error.problems.count > 5 ? " and \(error.problems.count - 5) more" : ""
        self.init(invalid: "the server's \(what) does not fit the protocol: " + shown.joined(separator: "; ") + rest)
    }
}

extension SafetensorsError {
    /// Whether the file's bytes are to blame, and not the disk that they lie on.
    package var isOfContents: Bool {
        if case .inputOutput = self { return false }
        return true
    }
}
