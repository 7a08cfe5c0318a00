%% Loads modules in a VM that may end. A line on standard input names a file of modules, each as
%% Size:32, NameSize:16, Name, Module. Before each the number of the module is written to the file of
%% the same name with ".at" behind: if the VM ends, that is where.
-module(hot_patch_loader_child).
-export([start/0]).

start() ->
    loop().

loop() ->
    case io:get_line("") of
        Line when is_list(Line) ->
            Path = string:trim(Line),
            {ok, Modules} = file:read_file(Path),
            {ok, At} = file:open(Path ++ ".at", [write, raw]),
            {Loaded, Refused} = load(Modules, 0, At, {0, 0}),
            ok = file:close(At),
            erlang:garbage_collect(),
            Atoms = erlang:system_info(atom_count),
            io:format("done ~b ~b ~b~n", [Loaded, Refused, Atoms]),
            loop();
        _ ->
            halt(0)
    end.

load(<<Size:32, NameSize:16, Name:NameSize/binary, File:Size/binary, Rest/binary>>, N, At, Sum) ->
    ok = file:pwrite(At, 0, <<N:32>>),
    {Loaded, Refused} = Sum,
    More = case one(binary_to_atom(Name, utf8), File) of
               ok -> {Loaded + 1, Refused};
               refused -> {Loaded, Refused + 1}
           end,
    load(Rest, N + 1, At, More);
load(<<>>, _, _, Sum) ->
    Sum.

one(Module, File) ->
    case erlang:prepare_loading(Module, File) of
        {error, _} ->
            refused;
        Prepared ->
            %% A module that this VM runs stays as it is, and nothing of any module is run.
            case not erlang:module_loaded(Module)
                andalso not erlang:has_prepared_code_on_load(Prepared) of
                true -> finish(Module, Prepared);
                false -> ok
            end
    end.

finish(Module, Prepared) ->
    ok = erlang:finish_loading([Prepared]),
    _ = [erlang:get_module_info(Module, What) || What <- [exports, functions, nifs, md5]],
    _ = [catch erlang:get_module_info(Module, What) || What <- [attributes, compile]],
    true = erlang:delete_module(Module),
    true = erlang:purge_module(Module),
    ok.
