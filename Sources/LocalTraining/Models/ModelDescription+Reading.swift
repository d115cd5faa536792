import StrictJSON
import TrainerInterface

extension ModelDescription {
    /// Reads the configuration strictly: what is missing, out of range or unknown is an error that names the field.
    ///
    /// - Parameter body: Makes the architecture; if it reports a field, the result is dropped.
    /// - Returns: The architecture.
    /// - Throws: `ModelConfigurationError` about the first wrong field.
    func read<Architecture>(_ body: (FieldReader) -> Architecture) throws -> Architecture {
        do throws(DocumentError) {
            return try FieldReader.readConfiguration(JSONValue.parse(Array(config.utf8))) { fields in
                // A model directory's `config.json` also holds the architecture's name.
                _ = fields.value("model_type")
                return body(fields)
            }
        } catch {
            guard let problem = error.problems.first else { throw error }
            throw ModelConfigurationError(problem.pointer, problem.detail)
        }
    }
}
