// What a simulated world does about a caller that breaks the rules: it says which one, and where.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace tcp::inline v0_1::simulated {

/// How a world answers a violation of the rules of engine/concept.hpp. Recorded it is in each case.
enum class reaction : unsigned char {
    throws,  // std::logic_error with the sentence, the default; not while another one is on its way
    aborts,  // the sentence on stderr, then std::abort(): a debugger shows the call
    records,  // nothing more; the call that broke the rule does nothing
};

/// The violations of one world.
class misuse_log {
public:
    void answer_with(reaction how) noexcept { reaction_ = how; }
    const std::vector<std::string>& sentences() const noexcept { return sentences_; }

    /// Adds a sentence, seed and virtual time in front of it, and reacts; in a destructor nothing
    /// is thrown.
    void add(std::uint64_t seed, std::int64_t now, std::string_view what, bool may_throw = true) {
        std::string sentence = "tcp::simulation (seed " + std::to_string(seed) + ", at " +
                               std::to_string(now / 1000) + " us): ";
        sentence += what;
        sentences_.push_back(sentence);
        if (reaction_ == reaction::aborts) {
            std::fprintf(stderr, "%s\n", sentence.c_str());
            std::abort();
        }
        if (may_throw && reaction_ == reaction::throws && std::uncaught_exceptions() == 0)
            throw std::logic_error(sentence);
    }

private:
    std::vector<std::string> sentences_;
    reaction reaction_ = reaction::throws;
};

}  // namespace tcp::inline v0_1::simulated
