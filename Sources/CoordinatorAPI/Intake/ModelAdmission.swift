import Coordination
import Tensors
import UpdateCompression

/// Judges a first model as updates are judged: what is not finite would spoil every attempt, after devices have worked for it.
enum ModelAdmission {
    /// Checks the values in one pass; names, shapes and types are the coordinator's business.
    ///
    /// - Throws: ``CoordinationError`` with the code `not_finite` and the place of the value.
    static func check(_ path: String) throws {
        guard let model = try? SafetensorsFile(path: path) else { return }
        let entries = model.header.entries
        guard !entries.isEmpty, entries.allSatisfy({ $0.dataType == .float32 }) else { return }
        do {
            let values = try UpdateFile(path: path, layout: model.layout)
            _ = try values.check(bound: Double(Float.greatestFiniteMagnitude))
        } catch let error as UpdateFormatError {
            guard error.code == UpdateFormatError.notFinite else {
                throw CoordinationError(.unprocessable, error.code, error.description)
            }
            let place = error.description.split(separator: ": ").last ?? ""
            throw CoordinationError(.unprocessable, error.code, "the model holds a NaN or an infinity: \(place)")
        }
    }
}
