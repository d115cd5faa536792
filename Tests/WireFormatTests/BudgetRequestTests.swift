import StrictJSON
import Testing
import WireFormat

/// Which budgets a population may have, and what is said of the others.
struct BudgetRequestTests {
    private static func problems(_ text: String, change: Bool = false) throws -> [String: String] {
        let document = try JSONValue.parse(Array(text.utf8))
        var found: [String: String] = [:]
        do {
            if change {
                _ = try BudgetChangeRequest.read(document)
            } else {
                _ = try PopulationRequest.read(document)
            }
        } catch {
            // One sentence a field: a second one would show in the count of keys.
            for problem in error.problems {
                found[problem.pointer + (found[problem.pointer] == nil ? "" : " again")] = problem.detail
            }
        }
        return found
    }

    @Test(arguments: [
        (#"{"epsilon": 0, "delta": 1e-5}"#, "/budget/epsilon", "admits no round"),
        (#"{"epsilon": -2, "delta": 1e-5}"#, "/budget/epsilon", "admits no round"),
        (#"{"epsilon": 1e300, "delta": 1e-5}"#, "/budget/epsilon", "promise nothing"),
        (#"{"epsilon": 1000.5, "delta": 1e-5}"#, "/budget/epsilon", "promise nothing"),
        (#"{"epsilon": "Infinity", "delta": 1e-5}"#, "/budget/epsilon", "must be a number"),
        (#"{"epsilon": null, "delta": 1e-5}"#, "/budget/epsilon", ""),
        (#"{"delta": 1e-5}"#, "/budget/epsilon", "required"),
        (#"{"epsilon": 8}"#, "/budget/delta", "required"),
        (#"{"epsilon": 8, "delta": 0}"#, "/budget/delta", "outside"),
        (#"{"epsilon": 8, "delta": 1e-14}"#, "/budget/delta", "outside"),
        (#"{"epsilon": 8, "delta": 1}"#, "/budget/delta", "outside"),
        (#"{"epsilon": 8, "delta": 1e-5, "unit": "example"}"#, "/budget/unit", "client"),
        (#"{"epsilon": 8, "delta": 1e-5, "accountant": "hope"}"#, "/budget/accountant", "rdp"),
    ])
    func noBudgetThatPromisesNothing(_ budget: String, _ pointer: String, _ words: String) throws {
        let problems = try Self.problems(#"{"name": "p", "budget": \#(budget)}"#)
        #expect(problems.keys.contains(pointer) && problems.count == 1, "\(problems)")
        #expect(words.isEmpty || problems[pointer]?.contains(words) == true, "\(problems)")
    }

    @Test func aChangeIsHeldToTheSameBounds() throws {
        #expect(try Self.problems(#"{"epsilon": 3}"#, change: true).isEmpty)
        #expect(try Self.problems(#"{"epsilon": 0}"#, change: true)["/epsilon"]?.contains("admits no round") == true)
        #expect(try Self.problems(#"{"epsilon": 1e300}"#, change: true)["/epsilon"]?.contains("nothing") == true)
        let delta = try Self.problems(#"{"epsilon": 3, "delta": 1e-6}"#, change: true)
        #expect(delta.count == 1 && delta["/delta"]?.contains("fixed") == true)
        for good in ["1000", "1e-3", "8"] {
            #expect(try Self.problems(#"{"name": "p", "budget": {"epsilon": \#(good), "delta": 1e-5}}"#).isEmpty)
        }
    }
}
