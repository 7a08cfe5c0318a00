defmodule HotPatch.Analysis.Effects do
  @moduledoc false
  # Which functions do something to the world outside the process that calls them. What is not known counts
  # as if it did: nobody who rehearses shall be surprised. Reads (tables, settings, clocks) do nothing.

  @typedoc "A function, with its module and name as they stand in a file."
  @type name :: {module :: String.t(), function :: String.t(), arity()}

  @typedoc "`:unknown`: of a module that is not looked into, or a call whose name is made at run time."
  @type judgement :: :none | :effect | :unknown

  # Modules whose functions only work out something, or read.
  @quiet MapSet.new(
           ~w(lists maps sets ordsets orddict dict gb_sets gb_trees proplists string binary unicode math queue
              array base64 calendar re uri_string io_lib filename erl_anno rand random crypto zlib digraph sofs
              json unicode_util Elixir.Enum Elixir.Map Elixir.MapSet Elixir.List Elixir.Keyword Elixir.String
              Elixir.Integer Elixir.Float Elixir.Tuple Elixir.Range Elixir.Stream Elixir.Kernel Elixir.Kernel.Utils
              Elixir.Access Elixir.Regex Elixir.URI Elixir.Date Elixir.Date.Range Elixir.Time Elixir.DateTime
              Elixir.NaiveDateTime Elixir.Calendar Elixir.Calendar.ISO Elixir.Bitwise Elixir.Base Elixir.Atom
              Elixir.Enumerable Elixir.Collectable Elixir.Inspect Elixir.Inspect.Algebra Elixir.String.Chars
              Elixir.List.Chars Elixir.Exception Elixir.Macro Elixir.Path Elixir.Version Elixir.Bitstring
              Elixir.Function Elixir.Module Elixir.Duration Elixir.JSON Elixir.HashDict Elixir.HashSet
              Elixir.String.Unicode Elixir.Record Elixir.Protocol Elixir.Code.Identifier)
         )

  # Of these only some functions; the others have effects.
  @reading %{
    "ets" =>
      ~w(lookup lookup_element member info select select_count select_reverse match match_object match_spec_run
         match_spec_compile first last next prev tab2list foldl foldr whereis all slot fun2ms is_compiled_ms),
    "dets" => ~w(lookup member info select match match_object first next foldl foldr),
    "persistent_term" => ~w(get info),
    "application" =>
      ~w(get_env get_all_env get_key get_all_key get_application loaded_applications
         which_applications),
    "Elixir.Application" =>
      ~w(get_env fetch_env fetch_env! get_all_env spec get_application compile_env
         loaded_applications started_applications app_dir),
    "os" => ~w(getenv env timestamp system_time perf_counter getpid type version),
    "code" => ~w(is_loaded which get_path lib_dir priv_dir module_md5 all_loaded where_is_file),
    "counters" => ~w(new get info),
    "atomics" => ~w(new get info),
    "timer" => ~w(tc now_diff seconds minutes hours hms),
    "inet" => ~w(ntoa parse_address gethostname),
    "global" => ~w(whereis_name registered_names),
    "pg" => ~w(get_members get_local_members which_groups),
    "supervisor" => ~w(check_childspecs),
    "logger" => ~w(get_process_metadata get_primary_config allow),
    "proc_lib" => ~w(get_label translate_initial_call initial_call),
    "erl_eval" => [],
    "Elixir.Registry" => ~w(lookup keys select match count whereis_name meta),
    "Elixir.Process" => ~w(alive? info whereis get get_keys list put delete registered),
    "Elixir.System" =>
      ~w(get_env fetch_env fetch_env! system_time monotonic_time os_time time_offset
         unique_integer convert_time_unit version otp_release schedulers schedulers_online build_info),
    "Elixir.Node" => ~w(self alive? list),
    "Elixir.Code" => ~w(ensure_loaded? ensure_loaded loaded?),
    "Elixir.Supervisor" => ~w(init child_spec),
    "Elixir.DynamicSupervisor" => ~w(init),
    "Elixir.Task" => ~w(child_spec),
    "Elixir.Agent" => ~w(child_spec),
    "Elixir.GenServer" => ~w(whereis)
  }

  # Of Erlang itself these, and all else is worked out or read.
  @acting MapSet.new(
            ~w(! receive send send_nosuspend spawn spawn_link spawn_monitor spawn_opt spawn_request link unlink monitor
               demonitor register unregister group_leader open_port port_command port_close port_connect port_control
               port_call process_flag send_after start_timer cancel_timer halt garbage_collect suspend_process
               resume_process disconnect_node set_cookie setnode trace trace_pattern system_flag system_profile
               delete_module purge_module load_module load_nif finish_loading alias unalias hibernate yield
               process_display display nif_error bump_reductions system_monitor dist_ctrl_put_data)
          )

  # A call whose name is made at run time, as HotPatch's core names it.
  @made_up [{"erlang", "apply", 3}, {"erlang", "apply", 2}, {"erlang", "fun", 0}]

  # What the compiler writes into every module of its kind.
  @of_any [
    {"__struct__", 0},
    {"__struct__", 1},
    {"exception", 1},
    {"message", 1},
    {"module_info", 0},
    {"module_info", 1},
    {"__info__", 1}
  ]

  # OTP's and Elixir's own, which are not looked into: what is not in the tables has effects, or may have.
  @known_acting MapSet.new(
                  ~w(gen gen_server gen_statem gen_event file io rpc erpc prim_file gen_tcp gen_udp ssl socket httpc
                     error_logger disk_log mnesia net_kernel net_adm init sys user logger_server
                     Elixir.GenServer Elixir.GenEvent Elixir.File Elixir.IO Elixir.Port Elixir.Logger
                     Elixir.Task Elixir.Agent Elixir.DynamicSupervisor Elixir.Supervisor telemetry)
                )

  @doc """
  Whether a function has effects.

      iex> HotPatch.Analysis.Effects.judge({"lists", "map", 2})
      :none
      iex> HotPatch.Analysis.Effects.judge({"ets", "insert", 2})
      :effect
      iex> HotPatch.Analysis.Effects.judge({"Elixir.MyApp.Repo", "insert", 1})
      :unknown
  """
  @spec judge(name()) :: judgement()
  def judge(name) when name in @made_up, do: :unknown
  def judge({_module, function, arity}) when {function, arity} in @of_any, do: :none

  # To end oneself is a failure, and is caught as one.
  def judge({"erlang", "exit", arity}), do: if(arity == 1, do: :none, else: :effect)

  def judge({"erlang", function, _arity}),
    do: if(MapSet.member?(@acting, function), do: :effect, else: :none)

  def judge({module, function, _arity}) do
    cond do
      MapSet.member?(@quiet, module) -> :none
      is_map_key(@reading, module) -> if(function in @reading[module], do: :none, else: :effect)
      MapSet.member?(@known_acting, module) -> :effect
      true -> :unknown
    end
  end

  @doc """
  Whether a module is one of those in the tables, so that nothing is gained by looking into it.

      iex> HotPatch.Analysis.Effects.known?("ets")
      true
      iex> HotPatch.Analysis.Effects.known?("Elixir.MyApp.Repo")
      false
  """
  @spec known?(String.t()) :: boolean()
  def known?(module) do
    module == "erlang" or MapSet.member?(@quiet, module) or is_map_key(@reading, module) or
      MapSet.member?(@known_acting, module)
  end

  @doc """
  A function that has effects, or may have, in words.

      iex> HotPatch.Analysis.Effects.text({"erlang", "!", 2})
      "sends a message"
      iex> HotPatch.Analysis.Effects.text({"Elixir.MyApp.Repo", "insert", 1})
      "calls MyApp.Repo.insert/1, of which nothing is known here"
  """
  @spec text(name()) :: String.t()
  def text({"erlang", "!", 2}), do: "sends a message"
  def text({"erlang", "receive", 0}), do: "waits for messages"

  def text(name) when name in @made_up,
    do: "calls a function whose name is known only when it runs"

  def text(name) do
    case judge(name) do
      :unknown -> "calls #{shown(name)}, of which nothing is known here"
      _effect_or_none -> "calls #{shown(name)}"
    end
  end

  defp shown({"Elixir." <> module, function, arity}), do: "#{module}.#{function}/#{arity}"
  defp shown({module, function, arity}), do: ":#{module}.#{function}/#{arity}"
end
