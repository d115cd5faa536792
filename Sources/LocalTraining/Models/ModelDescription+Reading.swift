import StrictJSON
import TrainerInterface

extension ModelDescription {
    /// Reads the configuration strictly: what is missing, out of range or unknown is an error that names the field.
    ///
    /// - Parameter body: Makes the architecture; where it has reported something, what it makes is thrown away.
    /// - Returns: The architecture.
    /// - Throws: `ModelConfigurationError` of the first field that is wrong.
    func read<Architecture>(_ body: (FieldReader) -> Architecture) throws -> Architecture {
        do throws(DocumentError) {
            return try FieldReader.readConfiguration(JSONValue.parse(Array(config.utf8))) { fields in
                // A model directory's `config.json` says what the description says beside the configuration.
                _ = fields.value("model_type")
                return body(fields)
            }
        } catch {
            guard let problem = error.problems.first else { throw error }
            throw ModelConfigurationError(problem.pointer, problem.detail)
        }
    }
}
