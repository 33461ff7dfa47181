#include "executors/agent/configuration.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/field.h"
#include "common/files.h"
#include "common/http.h"
#include "common/strings.h"
#include "common/yaml.h"
#include "executors/agent/tools/check_keys.h"

namespace flowmesh::agent {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxFileBytes = 1 << 20;
constexpr size_t kLongestServerName = 32;  // of 64 that a tool's name may have

// `default`, `examples/search_agent`: parts that are file names.
bool IsName(const std::string& name) {
  const std::vector<std::string> parts = absl::StrSplit(name, '/');
  return std::all_of(parts.begin(), parts.end(),
                     [](const std::string& part) { return IsPlainFileName(part); });
}

std::string UserFolder(const EnvLookup& env) {
  return std::string(Trim(env(kConfigDirVariable).value_or("")));
}

// Names of all configurations, the user's and those that come with the program.
std::string KnownNames(const EnvLookup& env) {
  std::set<std::string> names;
  for (const auto& [name, yaml] : ShippedConfigurations()) names.insert(name);
  const fs::path folder = UserFolder(env);
  std::error_code error;
  for (fs::recursive_directory_iterator it(folder, error), end; !error && it != end;
       it.increment(error)) {
    if (it->path().extension() != ".yaml") continue;
    names.insert(fs::path(it->path().lexically_relative(folder)).replace_extension().string());
  }
  return absl::StrJoin(names, ", ");
}

class Reader {
 public:
  Reader(const EnvLookup& env, AgentConfiguration* configuration)
      : env_(env), configuration_(*configuration) {}

  absl::Status Read(const Json& document) {
    const Field root(&document, "");
    if (!document.is_object()) {
      return absl::InvalidArgumentError(
          absl::StrCat("expected a map, got ", DescribeJson(document)));
    }
    AgentConfiguration& out = configuration_;
    ASSIGN_OR_RETURN(out.allow_private_addresses, root["allow_private_addresses"].BoolOr(false));
    ASSIGN_OR_RETURN(const int64_t bytes,
                     root["max_tool_answer"].IntOr(static_cast<int64_t>(out.max_tool_answer), 1024,
                                                   int64_t{16} << 20));
    out.max_tool_answer = static_cast<size_t>(bytes);
    if (root["team"].present()) {
      RETURN_IF_ERROR(
          CheckKeys(root, {"description", "team", "allow_private_addresses", "max_tool_answer"}));
      return ReadTeam(root["team"]);
    }
    RETURN_IF_ERROR(
        CheckKeys(root, {"description", "instructions", "max_turns", "model", "tools",
                         "mcp_servers", "allow_private_addresses", "max_tool_answer", "team"}));
    ASSIGN_OR_RETURN(out.agent, ReadAgent(root));
    return absl::OkStatus();
  }

 private:
  absl::Status ReadTeam(const Field& field) {
    RETURN_IF_ERROR(CheckKeys(field, {"planner", "workers", "reporter", "max_steps"}));
    TeamSettings team;
    ASSIGN_OR_RETURN(const int64_t steps, field["max_steps"].IntOr(team.max_steps, 1, 100));
    team.max_steps = static_cast<int>(steps);
    ASSIGN_OR_RETURN(team.planner, ReadMember(field["planner"]));
    ASSIGN_OR_RETURN(team.reporter, ReadMember(field["reporter"]));
    const Field workers = field["workers"];
    RETURN_IF_ERROR(workers.CheckMap());
    if (!workers.present() || workers.json().empty()) {
      return workers.Expected("a map of at least one worker by name");
    }
    for (const auto& [name, value] : workers.json().items()) {
      ASSIGN_OR_RETURN(AgentSettings worker, ReadMember(workers[name]));
      team.workers.emplace_back(name, std::move(worker));
    }
    configuration_.team = std::move(team);
    return absl::OkStatus();
  }

  absl::StatusOr<AgentSettings> ReadMember(const Field& field) {
    RETURN_IF_ERROR(CheckKeys(
        field, {"description", "instructions", "max_turns", "model", "tools", "mcp_servers"}));
    return ReadAgent(field);
  }

  absl::StatusOr<AgentSettings> ReadAgent(const Field& field) {
    AgentSettings agent;
    ASSIGN_OR_RETURN(agent.description, field["description"].StringOr(""));
    ASSIGN_OR_RETURN(agent.instructions, field["instructions"].StringOr(""));
    ASSIGN_OR_RETURN(const int64_t turns, field["max_turns"].IntOr(agent.max_turns, 1, 1000));
    agent.max_turns = static_cast<int>(turns);
    ASSIGN_OR_RETURN(agent.model, ReadModel(field["model"]));
    ASSIGN_OR_RETURN(agent.tools, ReadTools(field["tools"]));
    ASSIGN_OR_RETURN(agent.mcp_servers, ReadServers(field["mcp_servers"]));
    return agent;
  }

  absl::StatusOr<ModelOverrides> ReadModel(const Field& field) {
    RETURN_IF_ERROR(CheckKeys(field, {"local", "chat_template", "type", "name", "base_url",
                                      "api_key_env", "temperature", "max_tokens"}));
    ModelOverrides model;
    ASSIGN_OR_RETURN(model.local, field["local"].StringOr(""));
    ASSIGN_OR_RETURN(model.chat_template, field["chat_template"].StringOr(""));
    for (const char* key : {"type", "name", "base_url", "api_key_env"}) {
      if (!model.local.empty() && field[key].present()) {
        return field[key].Error("cannot stand beside `local`, which needs no endpoint");
      }
    }
    if (model.local.empty() && field["chat_template"].present()) {
      return field["chat_template"].Error("needs `local`: an endpoint has its own");
    }
    ASSIGN_OR_RETURN(model.type, field["type"].StringOr(""));
    ASSIGN_OR_RETURN(model.name, field["name"].StringOr(""));
    ASSIGN_OR_RETURN(model.base_url, field["base_url"].StringOr(""));
    ASSIGN_OR_RETURN(model.api_key_env, field["api_key_env"].StringOr(""));
    if (field["temperature"].present()) {
      ASSIGN_OR_RETURN(model.temperature, field["temperature"].Number());
    }
    if (field["max_tokens"].present()) {
      ASSIGN_OR_RETURN(model.max_tokens, field["max_tokens"].Int(1));
    }
    return model;
  }

  // Each a name, or a map of one name to its options.
  absl::StatusOr<std::vector<ToolChoice>> ReadTools(const Field& list) {
    RETURN_IF_ERROR(list.CheckList());
    std::vector<ToolChoice> tools;
    for (size_t i = 0; i < list.size(); ++i) {
      const Field entry = list[i];
      ToolChoice choice{.path = entry.path()};
      if (entry.json().is_string()) {
        choice.name = entry.json().get<std::string>();
      } else if (entry.json().is_object() && entry.json().size() == 1) {
        choice.name = entry.json().begin().key();
        choice.path = entry[choice.name].path();
        RETURN_IF_ERROR(entry[choice.name].CheckMap());
        if (entry[choice.name].present()) choice.options = entry[choice.name].json();
      } else {
        return entry.Expected("a tool's name, or a map of one name to its options");
      }
      tools.push_back(std::move(choice));
    }
    return tools;
  }

  absl::StatusOr<std::vector<McpServer>> ReadServers(const Field& map) {
    RETURN_IF_ERROR(map.CheckMap());
    std::vector<McpServer> servers;
    if (!map.present()) return servers;
    for (const auto& [name, value] : map.json().items()) {
      if (!IsPlainFileName(name) || name.size() > kLongestServerName) {
        return map[name].Error("expected a short name of letters, digits, '-' and '_'");
      }
      ASSIGN_OR_RETURN(McpServer server, ReadServer(map[name]));
      server.settings.name = name;
      servers.push_back(std::move(server));
    }
    return servers;
  }

  absl::StatusOr<McpServer> ReadServer(const Field& field) {
    RETURN_IF_ERROR(
        CheckKeys(field, {"command", "args", "env", "url", "headers", "timeout_sec", "tools"}));
    McpServer server;
    mcp::ServerSettings& settings = server.settings;
    ASSIGN_OR_RETURN(settings.command, field["command"].StringOr(""));
    ASSIGN_OR_RETURN(settings.url, field["url"].StringOr(""));
    if (settings.command.empty() == settings.url.empty()) {
      return field.Error("expected either `command` or `url`");
    }
    if (!settings.url.empty() && UrlOrigin(settings.url).empty()) {
      return field["url"].Error("expected an http(s) URL");
    }
    if (field["args"].present()) {
      ASSIGN_OR_RETURN(settings.args, ReadArguments(field["args"]));
    }
    if (field["tools"].present()) {
      ASSIGN_OR_RETURN(server.tools, field["tools"].StringList());
    }
    ASSIGN_OR_RETURN(const auto env, ReadStrings(field["env"]));
    settings.env.insert(env.begin(), env.end());
    ASSIGN_OR_RETURN(settings.headers, ReadStrings(field["headers"]));
    for (std::string& secret : settings.Secrets()) {
      configuration_.secrets.push_back(std::move(secret));
    }
    ASSIGN_OR_RETURN(const double seconds, field["timeout_sec"].NumberOr(60));
    if (seconds <= 0) return field["timeout_sec"].Expected("a number above 0");
    settings.timeout = absl::Seconds(seconds);
    return server;
  }

  // These may hold secrets: what was found is not shown.
  static absl::StatusOr<std::vector<std::string>> ReadArguments(const Field& list) {
    const auto is_string = [](const Json& item) { return item.is_string(); };
    if (!list.json().is_array() ||
        !std::all_of(list.json().begin(), list.json().end(), is_string)) {
      return list.Error("expected a list of strings");
    }
    return list.StringList();
  }

  // A map of texts, in which variables of the environment are filled in. It may hold secrets.
  absl::StatusOr<std::vector<std::pair<std::string, std::string>>> ReadStrings(const Field& map) {
    std::vector<std::pair<std::string, std::string>> values;
    if (!map.present()) return values;
    if (!map.json().is_object()) return map.Error("expected a map");
    for (const auto& [key, value] : map.json().items()) {
      if (!value.is_string()) return map[key].Error("expected a string");
      ASSIGN_OR_RETURN(std::string filled, FillIn(map[key], value.get<std::string>()));
      values.emplace_back(key, std::move(filled));
    }
    return values;
  }

  absl::StatusOr<std::string> FillIn(const Field& field, const std::string& text) {
    std::string out;
    size_t at = 0;
    while (true) {
      const size_t begin = text.find("${", at), end = text.find('}', begin);
      if (begin == std::string::npos || end == std::string::npos) break;
      const std::string name = text.substr(begin + 2, end - begin - 2);
      const std::string value = env_(name).value_or("");
      if (value.empty()) {
        return field.Error(absl::StrCat("the environment variable ", name, " is not set"));
      }
      configuration_.secrets.push_back(value);
      absl::StrAppend(&out, text.substr(at, begin - at), value);
      at = end + 1;
    }
    return out + text.substr(at);
  }

  const EnvLookup& env_;
  AgentConfiguration& configuration_;
};

}  // namespace

absl::StatusOr<AgentConfiguration> LoadConfiguration(const std::string& name,
                                                     const EnvLookup& env) {
  AgentConfiguration configuration{.name = name, .source = "built in"};
  std::string yaml;
  const std::string folder = UserFolder(env);
  const fs::path file = fs::path(folder) / absl::StrCat(name, ".yaml");
  const auto shipped = ShippedConfigurations().find(name);
  std::error_code ignored;
  if (IsName(name) && !folder.empty() && fs::is_regular_file(file, ignored)) {
    ASSIGN_OR_RETURN(yaml, ReadFile(file, kMaxFileBytes));
    configuration.source = file.string();
  } else if (shipped != ShippedConfigurations().end()) {
    yaml = shipped->second;
  } else {
    return absl::InvalidArgumentError(absl::StrCat(
        "unknown agent configuration '", name.substr(0, 200), "'; known are: ", KnownNames(env)));
  }
  const std::string where =
      absl::StrCat("agent configuration '", name, "' (", configuration.source, ")");
  const absl::StatusOr<Json> document = ParseYaml(yaml);
  if (!document.ok()) return Annotate(document.status(), where);
  RETURN_IF_ERROR(Annotate(Reader(env, &configuration).Read(*document), where));
  return configuration;
}

}  // namespace flowmesh::agent
