import Foundation
import Tensors

/// Which file an answer says that it is.
package enum FileDigestField {
    /// The SHA-256 of the whole file, in hexadecimal: a part's own `Content-Digest` would be another.
    package static func whole(of response: TransportResponse) -> String? {
        let field =
            response.headers["repr-digest"] ?? (response.status == 200 ? response.headers["content-digest"] : nil)
        return field.flatMap(ContentDigestField.hexadecimal(of:))
    }
}

/// `Content-Digest: sha-256=:BASE64:`.
enum ContentDigestField {
    /// The SHA-256 in hexadecimal; `nil` where the field has none.
    static func hexadecimal(of field: String) -> String? {
        for item in field.split(separator: ",") {
            let text = item.trimmingCharacters(in: .whitespaces)
            guard text.hasPrefix("sha-256=:"), text.hasSuffix(":"), text.count > 10,
                let data = Data(base64Encoded: String(text.dropFirst(9).dropLast())), data.count == 32
            else { continue }
            return data.hexadecimal
        }
        return nil
    }
}
